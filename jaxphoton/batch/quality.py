"""What is odd about a generated text: it was cut off, it is empty, or it repeats itself.

A text repeats itself if, letter case, punctuation and numbers aside,
- the same 1 or 2 words come 4 times in a row, or the same 3 to 32 words come 3 times in a row ("a red car, a red car,
  a red car"; but a list such as "a red car, a blue car, a green car" does not), or
- inside a word, the same 1 to 8 letters come 10 times in a row ("hahahahahahahahahaha").
Words are runs of letters and digits with a letter among them; each Chinese character or Japanese syllable is one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

Flag = Literal["cut-off", "empty", "repeated"]
FLAGS: tuple[Flag, ...] = get_args(Flag)
# What a journal's `Record.warnings` say.
WARNINGS: Mapping[Flag, str] = {
    "cut-off": "cut off at the token limit",
    "empty": "empty text",
    "repeated": "the text repeats itself",
}

_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|\d*[^\W\d_{_IDEOGRAPHS}][^\W_{_IDEOGRAPHS}]*")
_LETTERS_IN_A_ROW = 10
_LETTERS = re.compile(rf"([^\W\d_]{{1,8}}?)\1{{{_LETTERS_IN_A_ROW - 1}}}")
_LONGEST = 32


def flags(results: Sequence[Mapping[str, Any]]) -> tuple[Flag, ...]:
    """What is odd about the results of one image (`Record.results`), in the order of `FLAGS`."""
    found = texts(results)
    odd = {
        "cut-off": any(result.get("finish_reason") == "length" for result in results),
        "empty": any(not text.strip() for text in found),
        "repeated": any(map(repeats, found)),
    }
    return tuple(flag for flag in FLAGS if odd[flag])


def text_of(result: Mapping[str, Any]) -> str | None:
    """The caption or the answer of a result; None for boxes and points."""
    text = result.get("caption", result.get("answer"))
    return text if isinstance(text, str) else None


def texts(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The captions and answers among the results of one image."""
    return [text for result in results if (text := text_of(result)) is not None]


def repeats(text: str) -> bool:
    """Whether a text repeats itself, as this module defines it."""
    words = _WORD.findall(text.casefold())
    if any(len(word) >= _LETTERS_IN_A_ROW and _LETTERS.search(word) for word in words):
        return True
    # Every such repetition holds some three words twice; most texts hold none, and are done here.
    if len(set(zip(words, words[1:], words[2:], strict=False))) == max(0, len(words) - 2):
        return False
    return any(_in_a_row(words, period) for period in range(1, min(_LONGEST, len(words) // 3) + 1))


def _in_a_row(words: list[str], period: int) -> bool:
    """Whether some `period` words come often enough in a row: each word is then that of a period before."""
    needed = period * (3 if period <= 2 else 2)
    run = 0
    for word, before in zip(words[period:], words, strict=False):
        run = run + 1 if word == before else 0
        if run >= needed:
            return True
    return False
