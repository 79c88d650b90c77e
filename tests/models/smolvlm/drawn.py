"""Settings of the published models, a small one with drawn parameters, and what loading needs of a family."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxphoton.models.llama.config import RopeConfig, TextConfig
from jaxphoton.models.protocol import Family
from jaxphoton.models.siglip.config import VisionConfig
from jaxphoton.models.smolvlm.config import ImageConfig, ModelConfig, SpecialTokens
from jaxphoton.models.smolvlm.device import SmolVLMNetwork
from jaxphoton.models.smolvlm.names import SmolVLMTensors
from jaxphoton.models.smolvlm.params import Params

_SMALL_VISION = {"model_type": "smolvlm_vision", "hidden_size": 768, "num_attention_heads": 12, "image_size": 512}
_SMALL_VISION |= {"patch_size": 16, "num_hidden_layers": 12, "intermediate_size": 3072}


def _published(text: dict[str, Any], vision: dict[str, Any], scale: int) -> dict[str, Any]:
    common = {"model_type": "llama", "vocab_size": 49280, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5}
    ids = {"model_type": "smolvlm", "image_token_id": 49190, "scale_factor": scale, "pad_token_id": 128002}
    return ids | {"text_config": common | text, "vision_config": vision}


# What the published ones say; the largest leaves out the heads that are its class's default.
REAL: dict[str, dict[str, Any]] = {
    "2.2b": _published(
        {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "rope_theta": 130000.0},
        {
            "model_type": "smolvlm_vision",
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "image_size": 384,
            "patch_size": 14,
        },
        3,
    ),
    "500m": _published(
        {
            "hidden_size": 960,
            "intermediate_size": 2560,
            "num_hidden_layers": 32,
            "num_attention_heads": 15,
            "num_key_value_heads": 5,
            "head_dim": 64,
            "rope_theta": 100000,
        },
        _SMALL_VISION,
        4,
    ),
    "256m": _published(
        {
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "head_dim": 64,
            "rope_theta": 100000,
        },
        _SMALL_VISION,
        4,
    ),
}


def bound_to(config: ModelConfig) -> Family:
    family = cast(Any, SimpleNamespace(config=config, network=SmolVLMNetwork(config)))
    family.tensors = SmolVLMTensors(family)
    return family


# Frames of 4 x 4 patches, of which 2 x 2 become one embedding; pictures of up to 2 x 2 tiles. Grouped heads.
SMALL = ModelConfig(
    vision=VisionConfig(12, 20, 2, 2, 14, 3),
    text=TextConfig(16, 12, 2, 4, 2, 4, 67, 160, 1e-5, RopeConfig(rope_theta=100.0)),
    scale_factor=2,
    image_token_id=66,
    tokens=SpecialTokens(1, 3, 65, 64, tuple(range(28, 64))),
    image=ImageConfig(longest_edge=28),
)


def drawn(config: ModelConfig) -> Params:
    """Parameters in float32."""
    random = np.random.default_rng(0)
    shapes = SmolVLMNetwork(config).abstract("float32")
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(0, 0.3, leaf.shape), leaf.dtype), shapes)
