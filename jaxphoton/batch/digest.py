"""Digests that tell one model from another, in hexadecimal."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # which imports jax
    from jaxphoton.api import Model

_WHOLE = 8 << 20
_SAMPLES, _SAMPLE = 64, 64 << 10
_LENGTH = 32


def model_digest(path: Path) -> str:
    """A digest that tells the files of one model from those of another: the same wherever they lie.

    Of files over 8 MiB, 64 samples of 64 KiB, first and last part included, and the size: seconds would pass at the
    start of every run if all weights were read.
    """
    digest = hashlib.sha256()
    names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    for name in names if path.is_dir() else [""]:
        if any(part.startswith((".", "__")) for part in name.split("/")):
            continue  # of version control and Python
        file = path / name
        size = file.stat().st_size
        digest.update(f"{len(name)} {name} {size} ".encode())
        with file.open("rb") as stream:
            if size <= _WHOLE:
                digest.update(stream.read())
                continue
            for index in range(_SAMPLES):
                stream.seek(index * (size - _SAMPLE) // (_SAMPLES - 1))
                digest.update(stream.read(_SAMPLE))
    return digest.hexdigest()[:_LENGTH]


def params_digest(model: Model) -> str:
    """Of parameters in memory, all of which are read: the same on a mesh, but where it splits groups of numbers of few
    bits; another than that of the files they may have come from."""
    import jax  # there already: whoever has parameters has it

    from jaxphoton.loading import in_own_order

    digest = hashlib.sha256()
    paths, _ = jax.tree_util.tree_flatten_with_path(model.params)
    for (path, _), leaf in zip(paths, in_own_order(model.family, model.params, model.split), strict=True):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype} ".encode())
        digest.update(leaf.tobytes())
    return digest.hexdigest()[:_LENGTH]
