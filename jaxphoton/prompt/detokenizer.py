"""Token ids one at a time -> text that never changes once it was handed out."""

from __future__ import annotations

from typing import Protocol

REPLACEMENT = "\ufffd"

# A byte token may be the start of a character of at most 4 bytes: up to 3 replacement characters may still change.
_UNSETTLED = 3

# Ids that stay in the window: 9 bytes for the unsettled characters (each at most 3), 3 to get in step with the
# characters where the cut fell inside one, and every id of text is at least one byte.
_KEPT_IDS = 12
_WINDOW_IDS = 3 * _KEPT_IDS


class Decoder(Protocol):
    """What a detokenizer needs of a tokenizer."""

    def decode(self, ids: list[int], /) -> str: ...
    def is_text(self, token_id: int, /) -> bool: ...


class Detokenizer:
    """Streams the text of one sequence.

    For byte-level tokenizers the pieces together equal `tokenizer.decode` of all ids. The work per token is
    bounded: only a window of the newest ids is decoded. The window also keeps the left neighbours of a new id,
    because some tokenizers drop the space before the first word they are given.
    """

    def __init__(self, tokenizer: Decoder):
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._text = ""
        self._sent = 0

    def push(self, token_id: int) -> str:
        """Takes the next id; returns the text that is now certain, without characters still incomplete."""
        if not self._tokenizer.is_text(token_id):
            return ""
        self._window.append(token_id)
        self._text = self._tokenizer.decode(self._window)
        tail = self._text[-_UNSETTLED:]
        settled = len(self._text) - (len(tail) - len(tail.rstrip(REPLACEMENT)))
        piece = self._text[self._sent : settled]
        self._sent = max(self._sent, settled)
        if len(self._window) > _WINDOW_IDS:
            self._shrink()
        return piece

    def finish(self) -> str:
        """The rest, held back so far (U+FFFD where a character stayed incomplete); the next `push` starts anew."""
        piece = self._text[self._sent :]
        self._window, self._text, self._sent = [], "", 0
        return piece

    def _shrink(self) -> None:
        # Both texts end alike, so positions are carried over by their distance from the end.
        unsent = len(self._text) - self._sent
        self._window = self._window[-_KEPT_IDS:]
        self._text = self._tokenizer.decode(self._window)
        self._sent = max(0, len(self._text) - unsent)
