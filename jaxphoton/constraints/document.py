"""A JSON document as it is being written, byte by byte."""

from __future__ import annotations

from typing import Any, NamedTuple

MAX_NUMBER = 60  # characters of a number: digits are what a model that has lost its way repeats
_DIGITS = b"0123456789"
_NO_KEYS: Any = frozenset()
_NUMBER = b"0123456789.-+"


class Document(NamedTuple):
    """Where a text stands that a grammar of JSON has allowed so far.

    Attributes:
      open: the innermost open array or object and those around it: (keys, around it), keys None for an array.
      key_next: whether the next string is a key.
      text: what was written of an open string, only kept for a key; None outside of strings.
      escaped: whether the next byte belongs to an escape.
      number: how many characters of a number were written just before.
      fault: the last `after` brought a key twice or the exponent of a number.
    """

    open: tuple[Any, Any] | None = None
    key_next: bool = False
    text: bytes | None = None
    escaped: bool = False
    number: int = 0
    fault: bool = False

    @property
    def may_repeat(self) -> bool:
        """Whether a key is open that may become one of those before it."""
        keys = self.open[0] if self.key_next and self.open is not None else None
        text = self.text
        return keys is not None and text is not None and any(key.startswith(text) for key in keys)

    def after(self, data: bytes) -> Document:
        """The state behind more bytes.

        A key has one spelling only where \\u escapes are not allowed; only then are equal keys found.
        """
        opened: tuple[Any, Any] | None = self.open
        _, key_next, text, escaped, number, fault = self._replace(fault=False)
        for byte in data:
            if text is not None:
                if escaped or byte != 0x22:  # "
                    escaped = not escaped and byte == 0x5C  # \
                    if key_next:
                        text += bytes((byte,))
                    continue
                if key_next:
                    assert opened is not None
                    keys, around = opened
                    fault |= text in keys
                    opened, key_next = (keys | {text}, around), False
                text = None
                continue
            if byte in _DIGITS or (byte in _NUMBER and (number or byte == 0x2D)):
                number += 1
                continue
            fault |= bool(number) and byte in b"eE"
            number = 0
            if byte == 0x22:
                text = b""
            elif byte in b"{[":
                is_object = byte == 0x7B
                opened, key_next = (_NO_KEYS if is_object else None, opened), is_object
            elif byte in b"}]" and opened is not None:
                opened, key_next = opened[1], False
            elif byte == 0x2C and opened is not None:  # ,
                key_next = opened[0] is not None
        return Document(opened, key_next, text, escaped, number, fault)
