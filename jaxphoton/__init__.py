"""jaxphoton: Moondream vision-language models on JAX. The public names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxphoton.aio import AsyncMoondream
    from jaxphoton.api import EncodedImage, Moondream
    from jaxphoton.config import ConfigError, EngineConfig, ModelConfig
    from jaxphoton.engine.errors import DeadlineExceeded, EngineError, EngineStartError, ModelClosed, QueueFull
    from jaxphoton.image.errors import ImageError
    from jaxphoton.jobs import Answer, Ask, Job
    from jaxphoton.results import Result
    from jaxphoton.weights.load import WeightsError

__version__ = "0.1.0"

# Lazy (PEP 562): the host packages must be importable without pulling in jax.
_PUBLIC = {
    "Answer": "jaxphoton.jobs",
    "Ask": "jaxphoton.jobs",
    "AsyncMoondream": "jaxphoton.aio",
    "ConfigError": "jaxphoton.config",
    "DeadlineExceeded": "jaxphoton.engine.errors",
    "EncodedImage": "jaxphoton.api",
    "EngineConfig": "jaxphoton.config",
    "EngineError": "jaxphoton.engine.errors",
    "EngineStartError": "jaxphoton.engine.errors",
    "ImageError": "jaxphoton.image.errors",
    "Job": "jaxphoton.jobs",
    "ModelClosed": "jaxphoton.engine.errors",
    "ModelConfig": "jaxphoton.config",
    "Moondream": "jaxphoton.api",
    "QueueFull": "jaxphoton.engine.errors",
    "Result": "jaxphoton.results",
    "WeightsError": "jaxphoton.weights.load",
}

__all__ = [
    "Answer",
    "Ask",
    "AsyncMoondream",
    "ConfigError",
    "DeadlineExceeded",
    "EncodedImage",
    "EngineConfig",
    "EngineError",
    "EngineStartError",
    "ImageError",
    "Job",
    "ModelClosed",
    "ModelConfig",
    "Moondream",
    "QueueFull",
    "Result",
    "WeightsError",
    "__version__",
]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'jaxphoton' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
