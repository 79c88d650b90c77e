"""jaxphoton: Moondream vision-language models on JAX. The public names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxphoton.aio import AsyncMoondream
    from jaxphoton.api import EncodedImage, Moondream
    from jaxphoton.config import ConfigError, ModelConfig
    from jaxphoton.engine.engine import DeadlineExceeded, EngineError, QueueFull
    from jaxphoton.image.decode import ImageError
    from jaxphoton.weights.load import WeightsError

__version__ = "0.1.0"

# Lazy (PEP 562): the host packages must be importable without pulling in jax.
_PUBLIC = {
    "AsyncMoondream": "jaxphoton.aio",
    "ConfigError": "jaxphoton.config",
    "DeadlineExceeded": "jaxphoton.engine.engine",
    "EncodedImage": "jaxphoton.api",
    "EngineError": "jaxphoton.engine.engine",
    "ImageError": "jaxphoton.image.decode",
    "ModelConfig": "jaxphoton.config",
    "Moondream": "jaxphoton.api",
    "QueueFull": "jaxphoton.engine.engine",
    "WeightsError": "jaxphoton.weights.load",
}

__all__ = [
    "AsyncMoondream",
    "ConfigError",
    "DeadlineExceeded",
    "EncodedImage",
    "EngineError",
    "ImageError",
    "ModelConfig",
    "Moondream",
    "QueueFull",
    "WeightsError",
    "__version__",
]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'jaxphoton' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
