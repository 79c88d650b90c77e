"""What is odd about a generated text: it was cut off, there is nothing to see in it, or it repeats itself.

`loops` says what repeating is. What cannot be seen (controls, zero-width characters, white space) makes no text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from jaxphoton.batch.loops import repeats, visible
from jaxphoton.requests.skills import kinds

Flag = Literal["cut-off", "empty", "repeated"]
FLAGS: tuple[Flag, ...] = get_args(Flag)
# What a journal's `Record.warnings` say.
WARNINGS: Mapping[Flag, str] = {
    "cut-off": "cut off at the token limit",
    "empty": "empty text",
    "repeated": "the text repeats itself",
}


def flags(results: Sequence[Mapping[str, Any]]) -> tuple[Flag, ...]:
    """What is odd about the results of one image (`Record.results`), in the order of `FLAGS`."""
    found = texts(results)
    odd = {
        "cut-off": any(result.get("finish_reason") == "length" for result in results),
        "empty": any(map(blank, found)),
        "repeated": any(map(repeats, found)),
    }
    return tuple(flag for flag in FLAGS if odd[flag])


def blank(text: str) -> bool:
    """Whether there is nothing to see in a text."""
    return not visible(text).strip()


def text_of(result: Mapping[str, Any]) -> str | None:
    """The caption or the answer of a result; None for boxes and points."""
    written = (result.get(name) for name, kind in kinds().items() if kind.written)
    return next((text for text in written if isinstance(text, str)), None)


def texts(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The captions and answers among the results of one image."""
    return [text for result in results if (text := text_of(result)) is not None]
