"""Messages for people: names and values in them, which often come from a download, are cut, and without what a
terminal would act on.
"""

from __future__ import annotations

import logging
import reprlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

NAME_LENGTH = 80
VALUE_LENGTH = 240
PATH_LENGTH = 1000
NAMES_SHOWN = 20


class _Repr(reprlib.Repr):
    def __init__(self):
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 2, NAME_LENGTH, NAME_LENGTH

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write out integers of thousands of digits.
        return f"an integer of {x.bit_length()} bits" if x.bit_length() > 256 else super().repr_int(x, level)


def quoted(value: object) -> str:
    """`repr` of a value, cut: texts to `NAME_LENGTH` characters, others, of which not all is walked through, to
    `VALUE_LENGTH`.
    """
    return _cut(_Repr().repr(value), VALUE_LENGTH)


def escaped(name: object) -> str:
    """A path, or a name, with its unprintable characters escaped, for use without quotes; cut beyond `PATH_LENGTH`."""
    text = _cut(str(name), PATH_LENGTH)
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def short(name: object) -> str:
    """`escaped`, cut to `NAME_LENGTH` characters."""
    return _cut(escaped(str(name)[: NAME_LENGTH + 1]), NAME_LENGTH)


def listed(names: Iterable[object]) -> str:
    """The first `NAMES_SHOWN` names, each cut, and the number of the others: "a, b, and 3 more"."""
    names = list(names)
    rest = f", and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(_cut(escaped(str(name)[:VALUE_LENGTH]), VALUE_LENGTH) for name in names[:NAMES_SHOWN]) + rest


def first_line(error: BaseException) -> str:
    """What another library says of a fault: the first line, cut."""
    lines = str(error)[:5000].strip().splitlines()
    return _cut(escaped(lines[0]), 2 * VALUE_LENGTH) if lines else type(error).__name__


def to_stderr(line: str) -> None:
    """Prints a line, if somebody may read it."""
    if sys.stderr is not None:  # closed: print would turn to stdout
        print(line, file=sys.stderr, flush=True)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


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
