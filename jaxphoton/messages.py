"""Names and values in messages: cut, and without what a terminal would act on. They often come from a download."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable

NAME_LENGTH = 80
NAMES_SHOWN = 20


class _Repr(reprlib.Repr):
    def __init__(self):
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 2, NAME_LENGTH, NAME_LENGTH

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write out integers of thousands of digits.
        return f"an integer of {x.bit_length()} bits" if x.bit_length() > 256 else super().repr_int(x, level)


def quoted(value: object) -> str:
    """`repr` of a value, cut to about `NAME_LENGTH` characters; deep or long values are not walked through."""
    return _cut(_Repr().repr(value))


def escaped(name: object) -> str:
    """A name or a path with its unprintable characters escaped, for use without quotes. Never cut."""
    text = str(name)
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def listed(names: Iterable[object]) -> str:
    """The first `NAMES_SHOWN` names, each cut, and the number of the others: "a, b, and 3 more"."""
    names = list(names)
    rest = f", and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(_cut(escaped(str(name)[: 4 * NAME_LENGTH])) for name in names[:NAMES_SHOWN]) + rest


def first_line(error: BaseException) -> str:
    """What another library says of a fault, as one line of at most 500 characters."""
    lines = str(error)[:5000].strip().splitlines()
    return escaped(lines[0])[:500] if lines else type(error).__name__


def _cut(text: str) -> str:
    return text if len(text) <= 4 * NAME_LENGTH else f"{text[: 3 * NAME_LENGTH]}...{text[-NAME_LENGTH // 2 :]}"
