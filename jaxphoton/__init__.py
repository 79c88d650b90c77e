"""jaxphoton: small vision-language models on JAX. The public names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxphoton.aio import AsyncModel, AsyncMoondream
    from jaxphoton.api import EncodedImage, Model, Moondream
    from jaxphoton.config import ConfigError, EngineConfig
    from jaxphoton.image.errors import ImageError
    from jaxphoton.image.several import SeveralImages
    from jaxphoton.models.moondream.config import ModelConfig
    from jaxphoton.requests.answer import Answer, Result
    from jaxphoton.requests.ask import Ask, Job
    from jaxphoton.requests.errors import (
        DeadlineExceeded,
        EngineError,
        EngineStartError,
        ModelClosed,
        QueueFull,
        UnknownAdapter,
    )
    from jaxphoton.weights.load import WeightsError

__version__ = "0.1.0"

# Lazy (PEP 562): the host packages must be importable without pulling in jax.
_PUBLIC = {
    "Answer": "jaxphoton.requests.answer",
    "Ask": "jaxphoton.requests.ask",
    "AsyncModel": "jaxphoton.aio",
    "AsyncMoondream": "jaxphoton.aio",
    "ConfigError": "jaxphoton.config",
    "DeadlineExceeded": "jaxphoton.requests.errors",
    "EncodedImage": "jaxphoton.api",
    "EngineConfig": "jaxphoton.config",
    "EngineError": "jaxphoton.requests.errors",
    "EngineStartError": "jaxphoton.requests.errors",
    "ImageError": "jaxphoton.image.errors",
    "Job": "jaxphoton.requests.ask",
    "Model": "jaxphoton.api",
    "ModelClosed": "jaxphoton.requests.errors",
    "ModelConfig": "jaxphoton.models.moondream.config",
    "Moondream": "jaxphoton.api",
    "QueueFull": "jaxphoton.requests.errors",
    "Result": "jaxphoton.requests.answer",
    "SeveralImages": "jaxphoton.image.several",
    "UnknownAdapter": "jaxphoton.requests.errors",
    "WeightsError": "jaxphoton.weights.load",
}

__all__ = [
    "Answer",
    "Ask",
    "AsyncModel",
    "AsyncMoondream",
    "ConfigError",
    "DeadlineExceeded",
    "EncodedImage",
    "EngineConfig",
    "EngineError",
    "EngineStartError",
    "ImageError",
    "Job",
    "Model",
    "ModelClosed",
    "ModelConfig",
    "Moondream",
    "QueueFull",
    "Result",
    "SeveralImages",
    "UnknownAdapter",
    "WeightsError",
    "__version__",
]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'jaxphoton' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
