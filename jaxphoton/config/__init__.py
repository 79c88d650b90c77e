"""Settings: frozen data, read by every package, so there is no jax here.

`fields` says what a field may hold, `model` and `engine` are the settings, `templates` checks the prompts among them,
and `reading` makes them from files.
"""

from jaxphoton.config.engine import KERNELS, KV_DTYPES, EngineConfig
from jaxphoton.config.fields import ConfigError, OtherFamily
from jaxphoton.config.model import ModelConfig, MoeConfig, RegionConfig, TextConfig, TokenizerConfig, VisionConfig
from jaxphoton.config.reading import (
    MODEL_TYPES,
    config_from_dict,
    config_to_dict,
    load_config,
    named_config,
    settings_file,
)

__all__ = [
    "KERNELS",
    "KV_DTYPES",
    "MODEL_TYPES",
    "ConfigError",
    "EngineConfig",
    "ModelConfig",
    "MoeConfig",
    "OtherFamily",
    "RegionConfig",
    "TextConfig",
    "TokenizerConfig",
    "VisionConfig",
    "config_from_dict",
    "config_to_dict",
    "load_config",
    "named_config",
    "settings_file",
]
