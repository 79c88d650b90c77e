"""What each device of a mesh has of a model, from its settings alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import jax
from jax.sharding import AbstractMesh

from jaxphoton.config.quantization import quantization
from jaxphoton.engine.memory import device_bytes
from jaxphoton.layers.mesh import Split, engine_split
from jaxphoton.layers.spec import like
from jaxphoton.models.forms import quantized_tree
from jaxphoton.models.protocol import Family


def planned_split(family: Family, shape: Mapping[str, int]) -> Split:
    """How a model would lie on a mesh of that shape (`config.mesh.mesh_shape`); no device is needed.

    Raises:
      MeshError: it does not divide the model, with the sizes that would.
    """
    return engine_split(AbstractMesh(tuple(shape.values()), tuple(shape)), family.network.counts())


def share_bytes(family: Family, dtype: str, quantize: str | None, split: Split) -> dict[str, int]:
    """Bytes of the parameters on one device, by part.

    Raises:
      MeshError: in this form they cannot be shared so.
    """
    plain, tree = family.network.specs(dtype), quantized_tree(family, dtype, quantization(quantize))
    shapes = split.shapes(split.regrouped(like(plain, tree), plain))
    found = Counter[str]()
    for path, leaf in jax.tree_util.tree_flatten_with_path(shapes)[0]:
        found[jax.tree_util.keystr(path[:1], simple=True)] += device_bytes(leaf)
    return dict(found)
