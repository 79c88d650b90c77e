"""Parameters of the vision encoder as a pytree, and `specs` of them. Layers are stacked whole, since the encoder scans
over them; only those that are run are there.
"""

from __future__ import annotations

from flax import struct

from jaxphoton.layers import vision_block
from jaxphoton.layers.spec import Specs
from jaxphoton.layers.weight import Leaf, Weight
from jaxphoton.models.siglip.config import VisionConfig


@struct.dataclass
class Tower:
    """The encoder. `ln` rows: (ln1, ln2) x (scale, bias)."""

    patch_w: Weight  # [E, 3 * patch * patch], columns ordered channel, row, column
    patch_b: Leaf  # [E]
    pos_emb: Leaf  # [grid * grid, E]
    ln: Leaf  # [L, 2, 2, E]
    qkv_w: Weight  # [L, 3 * E, E]
    qkv_b: Leaf  # [L, 3 * E]
    proj_w: Weight  # [L, E, E]
    proj_b: Leaf  # [L, E]
    fc1_w: Weight  # [L, F, E]
    fc1_b: Leaf  # [L, F]
    fc2_w: Weight  # [L, E, F]
    fc2_b: Leaf  # [L, E]


def specs(c: VisionConfig, layers: int, make: Specs) -> Tower:
    """The encoder up to so many layers, with `jaxphoton.layers.spec.Spec` leaves."""
    dim, ff = c.hidden_size, c.intermediate_size
    return Tower(**vision_block.specs(make, layers, dim, ff, c.patch_dim, c.image_tokens))
