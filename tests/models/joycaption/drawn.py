"""Settings of the published model, a small one with drawn parameters, and what loading needs of a family."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxphoton.models.joycaption.config import ModelConfig
from jaxphoton.models.joycaption.device import JoyCaptionNetwork
from jaxphoton.models.joycaption.names import JoyCaptionTensors
from jaxphoton.models.joycaption.params import Params
from jaxphoton.models.llama.config import RopeConfig, TextConfig
from jaxphoton.models.protocol import Family
from jaxphoton.models.siglip.config import VisionConfig

# What JoyCaption Beta One says beside the defaults of its classes.
REAL: dict[str, Any] = {
    "model_type": "llava",
    "image_token_index": 128077,
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "full",
    "text_config": {
        "model_type": "llama",
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009],
    },
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
        "image_size": 384,
        "patch_size": 14,
    },
}


def bound_to(config: ModelConfig) -> Family:
    family = cast(Any, SimpleNamespace(config=config, network=JoyCaptionNetwork(config)))
    family.tensors = JoyCaptionTensors(family)
    return family


# Four query heads a key/value head. Two text layers: what one keeps of a prefix does not depend on what that sees. The
# last layer of the vision encoder is not run.
SMALL = ModelConfig(
    vision=VisionConfig(24, 32, 2, 2, 30, 14),
    text=TextConfig(16, 12, 2, 8, 2, 4, 35, 128, 1e-5, RopeConfig(rope_theta=100.0)),
    image_token_index=20,
)


def drawn(config: ModelConfig) -> Params:
    """Parameters in float32."""
    random = np.random.default_rng(0)
    shapes = JoyCaptionNetwork(config).abstract("float32")
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(0, 0.3, leaf.shape), leaf.dtype), shapes)
