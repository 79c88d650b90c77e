"""What checkpoints call the tensors of the vision encoder, behind the name of the encoder itself."""

from __future__ import annotations

import re
from collections.abc import Iterable

from jaxphoton.models.naming import Placement, Use, linear
from jaxphoton.models.siglip.config import VisionConfig

PATCHES = "embeddings.patch_embedding.weight"
_LAYER = re.compile(r"encoder\.layers\.(\d+)\..*")


def placements(c: VisionConfig, layers: int, root: str, leaf: str) -> Iterable[Placement]:
    """The placements of an encoder of so many layers; canonical names begin with `root`, paths with `leaf`."""
    dim = c.hidden_size
    yield from linear(f"{root}.embeddings.patch_embedding", f"{leaf}.patch")
    yield Placement(f"{root}.embeddings.position_embedding.weight", f"{leaf}.pos_emb")
    for i in range(layers):
        layer = f"{root}.encoder.layers.{i}"
        for j in (0, 1):
            for row, kind in enumerate(("weight", "bias")):
                yield Placement(f"{layer}.layer_norm{j + 1}.{kind}", f"{leaf}.ln", (i, j, row))
        for part, name in enumerate("qkv"):
            rows = slice(part * dim, (part + 1) * dim)
            yield from linear(f"{layer}.self_attn.{name}_proj", f"{leaf}.qkv", (i, rows))
        for name, own in (("self_attn.out_proj", "proj"), ("mlp.fc1", "fc1"), ("mlp.fc2", "fc2")):
            yield from linear(f"{layer}.{name}", f"{leaf}.{own}", (i,))


def uses(leaf: str) -> dict[str, Use]:
    """The matrices that may be in few bits. The patches' is small, and the picture's only way in."""
    return {f"{leaf}.{name}_w": "vision" for name in ("qkv", "proj", "fc1", "fc2")}


def is_beyond(c: VisionConfig, layers: int, name: str) -> bool:
    """Whether a tensor, by its name behind that of the encoder, is of a layer that is there and not run."""
    layer = _LAYER.fullmatch(name)
    return layer is not None and layers <= int(layer[1]) < c.num_hidden_layers
