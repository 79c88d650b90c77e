"""Parameters as pytrees, and `specs`, the one truth of their shapes, dtypes and logical axes."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax.typing import DTypeLike

from jaxphoton.layers import spec
from jaxphoton.layers.spec import Specs
from jaxphoton.layers.weight import Leaf, Weight
from jaxphoton.models.llama import params as llama
from jaxphoton.models.llama.params import TextParams
from jaxphoton.models.siglip import params as siglip
from jaxphoton.models.siglip.params import Tower
from jaxphoton.models.smolvlm.config import ModelConfig


@struct.dataclass
class VisionParams:
    """Vision encoder and connector. `s` is the scale factor."""

    tower: Tower
    post_ln: Leaf  # [2, E]: scale, bias
    proj_w: Weight  # [D, s * s * E]


@struct.dataclass
class Params:
    """All parameters of one model."""

    vision: VisionParams
    text: TextParams


def specs(config: ModelConfig, dtype: DTypeLike = jnp.bfloat16) -> Params:
    """The parameter tree of `config` with `jaxphoton.layers.spec.Spec` leaves; matrices are plain."""
    make, dim = Specs(dtype), config.vision.hidden_size
    vision = VisionParams(
        tower=siglip.specs(config.vision, config.vision.num_hidden_layers, make),
        post_ln=make.leaf(_scale_bias=2, vision_embed=dim),
        proj_w=make.matrix(embed=config.text.hidden_size, _cells=config.scale_factor**2 * dim),
    )
    return Params(vision=vision, text=llama.specs(config.text, make))


def abstract(config: ModelConfig, dtype: DTypeLike = jnp.bfloat16) -> Params:
    """`specs` as jax.ShapeDtypeStruct leaves."""
    return spec.abstract(specs(config, dtype))
