"""Which images a command means, and the model it asks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxphoton.cli.base import CommandError
from jaxphoton.messages import quoted

if TYPE_CHECKING:
    from jaxphoton.models.moondream.config import ModelConfig


def find_images(paths: list[str]) -> dict[str, Path]:
    """Key -> file of every image on this machine that the paths name, in their order.

    Raises:
      CommandError: nothing was found, or an entry is no file.
    """
    from jaxphoton.batch.errors import BatchError
    from jaxphoton.batch.sources import open_source

    try:
        items = list(open_source(paths).items())
    except BatchError as error:
        raise CommandError(str(error)) from error
    for item in items:
        if not item.local:
            raise CommandError(f"{item.key}: not a file on this machine")
    return {item.key: Path(item.path) for item in items}


def load_model(args: argparse.Namespace, **options: Any):
    """The model that `--model` names.

    Args:
      options: more arguments of `Moondream.from_pretrained`.

    Raises:
      CommandError: there is no such model, or its files are not usable.
    """
    from jaxphoton.api import Moondream
    from jaxphoton.config import ConfigError
    from jaxphoton.prompt.tokenizer import TokenizerError
    from jaxphoton.weights.load import WeightsError

    if args.max_pixels is not None:
        options["max_pixels"] = args.max_pixels
    try:
        return Moondream.from_pretrained(args.model, revision=args.revision, dtype=args.dtype, **options)
    except (ConfigError, TokenizerError, WeightsError, OSError) as error:
        raise CommandError(f"model {quoted(args.model)}: {error}") from error


def find_model(args: argparse.Namespace) -> tuple[Path, ModelConfig]:
    """The files of the model that `--model` names, which is downloaded if it has to be, and its settings.

    Raises:
      CommandError: there is no such model, or its settings or the headers of its weights are damaged.
    """
    from jaxphoton.config import ConfigError
    from jaxphoton.weights import hub
    from jaxphoton.weights.checkpoint import WeightsError

    try:
        path = hub.resolve(args.model, args.revision)
        return path, hub.check(path)
    except (ConfigError, WeightsError, OSError) as error:
        raise CommandError(f"model {quoted(args.model)}: {error}") from error


def digest_model(args: argparse.Namespace, path: Path) -> str:
    """A digest of a model's files.

    Raises:
      CommandError: one cannot be read.
    """
    from jaxphoton.batch.digest import model_digest

    try:
        return model_digest(path)
    except OSError as error:
        raise CommandError(f"model {quoted(args.model)}: {error}") from error
