"""Parameters as pytrees, and `specs`, the one truth of their shapes, dtypes and logical axes."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax.typing import DTypeLike

from jaxphoton.layers import spec
from jaxphoton.layers.spec import Specs
from jaxphoton.layers.weight import Leaf, Weight
from jaxphoton.models.joycaption.config import ModelConfig
from jaxphoton.models.llama import params as llama
from jaxphoton.models.llama.params import TextParams
from jaxphoton.models.siglip import params as siglip
from jaxphoton.models.siglip.params import Tower


@struct.dataclass
class VisionParams:
    """Vision encoder and projector."""

    tower: Tower
    proj_fc1_w: Weight  # [D, E]
    proj_fc1_b: Leaf  # [D]
    proj_fc2_w: Weight  # [D, D]
    proj_fc2_b: Leaf  # [D]


@struct.dataclass
class Params:
    """All parameters of one model."""

    vision: VisionParams
    text: TextParams


def specs(config: ModelConfig, dtype: DTypeLike = jnp.bfloat16) -> Params:
    """The parameter tree of `config` with `jaxphoton.layers.spec.Spec` leaves; matrices are plain."""
    make, dim, width = Specs(dtype), config.vision.hidden_size, config.text.hidden_size
    vision = VisionParams(
        tower=siglip.specs(config.vision, config.vision_layers, make),
        proj_fc1_w=make.matrix(vision_mlp=width, vision_embed=dim),
        proj_fc1_b=make.leaf(vision_mlp=width),
        proj_fc2_w=make.matrix(embed=width, vision_mlp=width),
        proj_fc2_b=make.leaf(embed=width),
    )
    return Params(vision=vision, text=llama.specs(config.text, make))


def abstract(config: ModelConfig, dtype: DTypeLike = jnp.bfloat16) -> Params:
    """`specs` as jax.ShapeDtypeStruct leaves."""
    return spec.abstract(specs(config, dtype))
