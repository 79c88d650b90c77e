"""Settings: frozen data, read by every package, so there is no jax here.

`fields` says what a field may hold, `engine` has the settings of an engine; those of a model lie with its family.
"""

from jaxphoton.config.engine import KERNELS, KV_DTYPES, STEP_PARTS, EngineConfig, step_parts
from jaxphoton.config.fields import ConfigError, OtherFamily

__all__ = ["KERNELS", "KV_DTYPES", "STEP_PARTS", "ConfigError", "EngineConfig", "OtherFamily", "step_parts"]
