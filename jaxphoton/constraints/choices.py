"""Choices: the answer is one of a list of texts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from jaxphoton.messages import quoted


def read_choices(value: Any) -> tuple[str, ...]:
    """The texts to choose from, each once.

    Raises:
      TypeError: not a collection of texts.
      ValueError: no text, an empty one, or one that has no UTF-8 form.
    """
    shown = quoted(value)
    # What can be read once would be empty for the second image.
    if isinstance(value, (str, bytes, Mapping, Iterator)) or not isinstance(value, Collection):
        raise TypeError(f"setting choices must be a list of texts, got {type(value).__name__} {shown}")
    texts = tuple(value)
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"setting choices must be a list of texts, got {quoted(text)} in it")
        if not text:
            raise ValueError(f"setting choices must be a list of one or more texts, none of them empty, got {shown}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"setting choices holds half a surrogate pair, which is not text: {quoted(text)}"
            ) from None
    if not texts:
        raise ValueError(f"setting choices must be a list of one or more texts, got {shown}")
    return tuple(dict.fromkeys(texts))


def choices_grammar(texts: tuple[str, ...]) -> str:
    """A Lark grammar: one terminal, since the parser bounds how many rules may stand side by side (2000)."""
    return f"start: CHOICE\nCHOICE: /{'|'.join(map(_escape, texts))}/"


def _escape(text: str) -> str:
    """A regular expression of exactly this text, whatever is in it."""
    return "".join(c if c.isascii() and c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text)
