"""What the encoder goes through, for checks of the families that have it."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np

from jaxphoton.layers.attention import attend
from jaxphoton.layers.vision_block import STACKED, block
from jaxphoton.models.siglip.config import LAYER_NORM_EPSILON, VisionConfig
from jaxphoton.models.siglip.network import patches
from jaxphoton.models.siglip.params import Tower


def hidden(tower: Tower, config: VisionConfig, pixels: np.ndarray) -> list[np.ndarray]:
    """Pictures uint8 [C, S, S, 3] -> what the first layer reads, and what each layer gives, [C, patches, E] each."""
    return [np.asarray(x) for x in jax.jit(partial(_hidden, config=config))(tower, pixels=pixels)]


def _hidden(tower: Tower, config: VisionConfig, pixels: jax.Array) -> list[jax.Array]:
    seen = [patches(tower, config, pixels) + tower.pos_emb[None]]
    for i in range(tower.ln.shape[0]):
        layer = jax.tree.map(lambda leaf, i=i: leaf[i], {name: getattr(tower, name) for name in STACKED})
        seen.append(block(layer, seen[-1], config.head_dim, attend, LAYER_NORM_EPSILON))
    return seen
