"""What is odd about a generated text: it was cut off, there is nothing to see in it, or it repeats itself.

What cannot be seen (controls, zero-width characters, white space) makes no text. Letter case and that aside, a text
repeats itself if
- the same word comes 4 times in a row; or the same 2 words 4 times, or 3 times with no number, line end or "|" among
  them, as lists and tables have; or the same 3 to 64 words 3 times, numbers such as "1.", "2." between them aside.
  "a red car, a red car, a red car" does, "a red car, a blue car, a green car" does not, nor does "gate 1, gate 2";
- inside a word, the same 1 to 8 letters come 10 times in a row ("hahahahahahahahahaha");
- the same 1 to 16 numbers and signs ("!", "0 1", "-=-", an emoji) come 8 times in a row and are nearly the whole text,
  or come 32 times in a row anywhere; lines and leaders ("-----", ".....") may be longer;
- the same digits come 20 times in a row in a number that is nearly the whole text, or 40 times anywhere.
Each character of a script without spaces between words (Chinese, Japanese, Thai, ...) is a word.

An answer repeats itself if its text does. One that the token limit has cut off does also if the last 16 words or more
came just before in the same order, or if its reasoning repeats itself.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple, get_args

from jaxphoton.requests.skills import kinds

Flag = Literal["cut-off", "empty", "repeated"]
FLAGS: tuple[Flag, ...] = get_args(Flag)
# What a journal's `Record.warnings` say.
WARNINGS: Mapping[Flag, str] = {
    "cut-off": "cut off at the token limit",
    "empty": "empty text",
    "repeated": "the text repeats itself",
}

_LONGEST = 64  # words of a unit
_SIGNS = 16  # signs of a unit
_MANY_WORDS = 16  # of a unit that need come but twice where a text is cut off
_COPIES, _MANY, _MANY_OF_LINES = 8, 32, 160
_NEARLY_ALL, _NEARLY_ALL_LINES = 0.8, 0.9
_LETTERS = re.compile(r"(\S{1,8}?)\1{9}")
_DIGITS = re.compile(r"(\d{1,4}?)\1{19,}")
_MANY_DIGITS = 40
# What lines are drawn with, and what leads to a page number.
_LINES = frozenset("-_=.~*#+|:\u00b7\u2022\u2013\u2014\u2026") | frozenset(map(chr, range(0x2500, 0x2580)))

# Thai to Burmese, Khmer, kana, Chinese.
_UNSPACED = (
    "\u0e00-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Vowel signs and accents, which Python does not count among the letters.
_MARKS = (
    "\u0300-\u036f\u0483-\u0489\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0730-\u074a\u07a6-\u07b0"
    "\u0900-\u0963\u0966-\u0dff\u1a17-\u1a7f\u1ab0-\u1aff\u1b00-\u1bf3\u1dc0-\u1dff\u20d0-\u20ff\ua880-\ua8f1"
)
_LETTER = rf"(?:[^\W_{_UNSPACED}]|[{_MARKS}])"
_TOKEN = re.compile(rf"(?P<line>\n)|(?P<number>\d+(?!{_LETTER}))|(?P<word>[{_UNSPACED}]|{_LETTER}+)|\S")
# These show nothing, though they count as letters, marks and symbols.
_UNSEEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0") | frozenset(
    map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
)
_INVISIBLE = frozenset({"Cc", "Cf", "Zl", "Zp"})


class _Token(NamedTuple):
    text: str
    kind: str | None  # "word", "number" or "line"; None for a sign
    start: int  # in the text


def flags(results: Sequence[Mapping[str, Any]]) -> tuple[Flag, ...]:
    """What is odd about the results of one image (`Record.results`), in the order of `FLAGS`."""
    found = texts(results)
    odd = {
        "cut-off": any(result.get("finish_reason") == "length" for result in results),
        "empty": any(map(blank, found)),
        "repeated": any(loops(result, result.get("finish_reason")) for result in results),
    }
    return tuple(flag for flag in FLAGS if odd[flag])


def blank(text: str) -> bool:
    """Whether there is nothing to see in a text."""
    return not visible(text).strip()


def text_of(result: Mapping[str, Any]) -> str | None:
    """The caption or the answer of a result; None for boxes and points."""
    written = (result.get(name) for name, kind in kinds().items() if kind.written)
    return next((text for text in written if isinstance(text, str)), None)


def loops(result: Mapping[str, Any], finish_reason: str | None) -> bool:
    """Whether an answer repeats itself; one of boxes or points does not."""
    text, thought = text_of(result), result.get("reasoning")
    if finish_reason == "length":
        reasoning = thought.get("text") if isinstance(thought, Mapping) else None
        if isinstance(reasoning, str) and repeats(reasoning):
            return True
        if text is not None and _cut_off(text):
            return True
    return text is not None and repeats(text)


def asked_again(results: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """How many of the results of one image were asked again (see `batch.retries`), and how many still repeat."""
    again = [result for result in results if result.get("retries")]
    return len(again), sum(loops(result, result.get("finish_reason")) for result in again)


def texts(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The captions and answers among the results of one image."""
    return [text for result in results if (text := text_of(result)) is not None]


def visible(text: str) -> str:
    """A text without the characters that show nothing; line ends, tabs and spaces stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(sign for sign in text if sign in "\n\t" or not _unseen(sign))


def repeats(text: str) -> bool:
    """Whether a text repeats itself, as this module defines it."""
    shown = visible(text).casefold()
    tokens = [_Token(found[0], found.lastgroup, found.start()) for found in _TOKEN.finditer(shown)]
    return _within(tokens) or _short(tokens, shown) or _long(tokens) or _signs(tokens)


def _cut_off(text: str) -> bool:
    """Whether a text ends in the middle of a loop of many words, of which there need not be three copies yet."""
    words = [found[0] for found in _TOKEN.finditer(visible(text).casefold()) if found.lastgroup == "word"]
    return any(words[-size:] == words[-2 * size : -size] for size in range(_MANY_WORDS, len(words) // 2 + 1))


def _unseen(sign: str) -> bool:
    return sign in _UNSEEN or unicodedata.category(sign) in _INVISIBLE


def _within(tokens: Sequence[_Token]) -> bool:
    """Letters that loop inside one word, digits inside one number."""
    for token in tokens:
        if token.kind == "word" and any(not found[1].isdecimal() for found in _LETTERS.finditer(token.text)):
            return True
        if token.kind == "number" and (found := _DIGITS.search(token.text)):
            many = len(found[0]) >= _MANY_DIGITS * len(found[1])
            if many or len(found[0]) >= _NEARLY_ALL * _size(tokens):
                return True
    return False


def _short(tokens: Sequence[_Token], shown: str) -> bool:
    """One or two words that loop."""
    named = [token for token in tokens if token.kind in ("word", "number")]
    for period in (1, 2):
        for loop in _loops(named, period, 4 * period):
            if any(token.kind == "word" for token in loop[:period]):
                return True
    for loop in _loops(named, 2, 6):
        between = shown[loop[0].start : loop[-1].start]
        words = all(token.kind == "word" for token in loop[:2]) and any(len(token.text) > 1 for token in loop[:2])
        if words and not {"\n", "|"} & set(between):
            return True
    return False


def _long(tokens: Sequence[_Token]) -> bool:
    """More words that loop."""
    words = [token for token in tokens if token.kind == "word"]
    texts = [token.text for token in words]
    # Every such loop holds some three words twice; most texts hold none, and are done here.
    if len(set(zip(texts, texts[1:], texts[2:], strict=False))) == max(0, len(texts) - 2):
        return False
    for period in range(3, min(_LONGEST, len(words) // 3) + 1):
        for loop in _loops(words, period, 3 * period):
            unit = [token.text for token in loop[:period]]
            # "gate 1, gate 2, ..." is a loop of "gate gate gate" too.
            if unit != unit[:1] * period and unit != (unit[:2] * period)[:period]:
                return True
    return False


def _signs(tokens: Sequence[_Token]) -> bool:
    """Numbers and signs that loop."""
    size = _size(tokens)
    for word, stretch in groupby(tokens, lambda token: token.kind == "word"):
        signs = list(stretch)
        if word or len(signs) < _COPIES:
            continue
        for period in range(1, min(_SIGNS, len(signs) // (_COPIES - 1)) + 1):
            # The last copy need not be whole.
            for loop in _loops(signs, period, period * (_COPIES - 1) + 1):
                lines = all(token.kind == "line" or token.text in _LINES for token in loop[:period])
                many, share = (_MANY_OF_LINES, _NEARLY_ALL_LINES) if lines else (_MANY, _NEARLY_ALL)
                if len(loop) >= many * period or _size(loop) >= share * size:
                    return True
    return False


def _size(tokens: Sequence[_Token]) -> int:
    return sum(len(token.text) for token in tokens if token.kind != "line")


def _loops(tokens: Sequence[_Token], period: int, least: int) -> Iterator[Sequence[_Token]]:
    """The stretches of at least `least` tokens in which each is that of a period before."""
    run = 0
    for place in range(period, len(tokens) + 1):
        if place < len(tokens) and tokens[place].text == tokens[place - period].text:
            run += 1
            continue
        if run + period >= least:
            yield tokens[place - period - run : place]
        run = 0
