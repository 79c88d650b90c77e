"""How a journal tells which caption was asked for: `normal`, `short (type danbooru, extra no-text lighting)`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from jaxphoton.requests.skills import LENGTHS, MORE_LENGTHS

# All that `described` can say, and prompts that read like it.
_CAPTION = re.compile(
    rf"(?:{'|'.join((*LENGTHS, *MORE_LENGTHS))}|[1-9][0-9]*)(?: \((?:(?P<type>type )|extra |name ).*\))?", re.DOTALL
)


def described(length: str, type: str | None, extra: Sequence[str], name: str | None) -> str:
    """A caption in the words of its length, and of what else it was asked for."""
    more = [] if type is None else [f"type {type}"]
    more += [f"extra {' '.join(extra)}"] if extra else []
    more += [] if name is None else [f"name {name!r}"]
    return f"{length} ({', '.join(more)})" if more else length


def asked_fields(about: str) -> tuple[str, ...]:
    """The fields of a result that say which caption it is; () where `about` is a prompt."""
    found = _CAPTION.fullmatch(about)
    return () if found is None else ("length", "type") if found["type"] else ("length",)
