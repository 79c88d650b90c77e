"""Settings of a model by name, without its weights."""

from __future__ import annotations

import os
from pathlib import Path

from jaxphoton.messages import quoted
from jaxphoton.models.moondream.config import ModelConfig
from jaxphoton.models.moondream.reading import load_config, named_config, settings_file
from jaxphoton.weights import hub

FAMILIES = ("moondream2", "moondream-0.5b", "moondream3")


def settings_of(name: str) -> ModelConfig:
    """Of a family, of "shapes", or of a checkpoint's folder or file. Nothing is downloaded.

    Raises:
      ValueError: no such model; ConfigError, which is one, if its settings cannot be read.
    """
    if name in FAMILIES:
        return named_config(name)
    path = hub.resolve(name) if name == hub.SHAPES else Path(os.path.expanduser(name))
    if not os.path.lexists(path):
        raise ValueError(
            f"no model {quoted(name)}; give one of {', '.join(FAMILIES)}, {hub.SHAPES}, or a checkpoint's folder"
        )
    return load_config(settings_file(path))
