"""What is being compiled, said on stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from jaxphoton.messages import to_stderr


class _StderrHandler(logging.Handler):
    """Writes messages to stderr with a prefix, beside a progress bar if there is one."""

    def __init__(self, prefix: str):
        super().__init__()
        self._prefix = prefix

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        with tqdm.external_write_mode(file=sys.stderr):
            to_stderr(f"{self._prefix}{record.getMessage()}")


@contextmanager
def compiling_shown(prefix: str) -> Iterator[None]:
    """Says on stderr what is being compiled: a first start may take minutes."""
    logger, handler = logging.getLogger("jaxphoton.compiling"), _StderrHandler(prefix)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # a library that sets up the root logger would have it said twice
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
