"""Files that are either the old or the new ones, never halves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file beside `path` for writing, which takes its place at the end, or goes if anything is raised.

    Its name is hidden and always the same: what a killed export leaves is overwritten by the next, and no folder
    source takes it for an image.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    try:
        with draft.open("wb") as file:
            yield file
        os.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """One line end is added."""
    with replacing(path) as file:
        file.write(text.encode("utf-8", "backslashreplace") + b"\n")
