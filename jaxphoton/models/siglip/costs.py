"""What the vision encoder costs, for the families that have it. No jax.

E width, F inner width, L layers that are run, P patches of a picture, p pixels along a patch.
"""

from __future__ import annotations

from jaxphoton.models.costs import Matrix, Part
from jaxphoton.models.siglip.config import VisionConfig


def tower_part(c: VisionConfig, layers: int) -> Part:
    """Blocks of 4 E^2 + 2 E F and their biases and norms, patches and positions."""
    e, f = c.hidden_size, c.intermediate_size
    matrices = [Matrix("vision", layers, rows, (columns,)) for rows, columns in ((3 * e, e), (e, e), (f, e), (e, f))]
    block = (5 * e + f) + 4 * e
    return Part(matrices, layers * block + (c.patch_dim + 1) * e + c.image_tokens * e)


def tower_flops(c: VisionConfig, layers: int) -> int:
    """Of one picture: patches 2 P (3 p^2) E, a layer 2 P (4 E^2 + 2 E F) + 4 P^2 E."""
    patches = c.image_tokens
    block = 2 * patches * c.layer_size + 4 * patches**2 * c.hidden_size
    return 2 * patches * c.patch_dim * c.hidden_size + layers * block


def pixel_bytes(c: VisionConfig) -> int:
    """Of one picture, uint8."""
    return 3 * c.image_size**2
