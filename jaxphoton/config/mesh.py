"""The mesh that a model is to be spread over, as people write it. No jax."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from jaxphoton.messages import quoted

AXES = ("data", "model", "expert")
_SIZE = re.compile(r"0*[1-9][0-9]{0,8}")


class MeshError(ValueError):
    """A mesh that cannot be, or does not fit the model or the machine."""


@dataclass(frozen=True, slots=True)
class EngineMeshes:
    """What a text says of a run.

    Attributes:
      copies: of the model, one an engine.
      mesh: of each engine; None for a single device.
      devices: of each engine.
    """

    copies: int = 1
    mesh: str | None = None
    devices: int = 1


def engine_meshes(text: str | None) -> EngineMeshes:
    """ "data=2,model=4" -> two engines, each with the mesh "model=4" of 4 devices.

    Raises:
      MeshError: as `mesh_shape`.
    """
    if text is None:
        return EngineMeshes()
    shape = mesh_shape(text)
    copies = shape.pop("data")
    mesh = ",".join(f"{name}={size}" for name, size in shape.items() if size > 1)
    return EngineMeshes(copies, mesh or None, math.prod(shape.values()))


def mesh_shape(text: str) -> dict[str, int]:
    """ "data=1,model=2,expert=2" -> the size of each axis in the order of `AXES`; what is left out is 1.

    Raises:
      MeshError: it is not of that form.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, equals, size = (piece.strip() for piece in part.partition("="))
        if not equals or name not in AXES or not _SIZE.fullmatch(size):
            raise MeshError(
                f'a mesh is written like "model=2,expert=2", with the axes {", ".join(AXES)}, not {quoted(text)}'
            )
        if name in sizes:
            raise MeshError(f"the mesh {quoted(text)} has {name} twice")
        sizes[name] = int(size)
    return {name: sizes.get(name, 1) for name in AXES}
