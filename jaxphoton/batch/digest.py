"""A digest that tells one model from another."""

from __future__ import annotations

import hashlib
from pathlib import Path

_WHOLE = 8 << 20
_SAMPLES, _SAMPLE = 64, 64 << 10


def model_digest(path: Path) -> str:
    """Of the files of a model, in hexadecimal; the same wherever they lie.

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
    return digest.hexdigest()[:32]
