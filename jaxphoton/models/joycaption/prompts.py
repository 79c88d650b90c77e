"""The chat form of Llama 3.1 as JoyCaption was trained on it: a system message, then turns; the image opens the first.

What users write is encoded as text alone, so that nothing in it ends a message; special ids stand between the pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from jaxphoton.models.joycaption.config import SpecialIds
from jaxphoton.requests.tokens import Prompt

Encode = Callable[[str], list[int]]


def no_ids(text: str) -> list[int]:
    """An encoder for asks that are only checked."""
    return []


SYSTEM = "You are a helpful image captioner."
# In front of every system text, whatever day it is.
DATES = "Cutting Knowledge Date: December 2023\nToday Date: 26 July 2024\n\n"


def prompt(ids: SpecialIds, encode: Encode, texts: Sequence[str], system: str = SYSTEM) -> Prompt:
    """What stands before the image, or what would open and close it, and behind it.

    Args:
      texts: of the turns: what the user says, what the model said, and so on; the last is the user's.
      system: what the model is told first.
    """

    turns = [("assistant" if turn % 2 else "user", text) for turn, text in enumerate(texts)]
    return conversation(ids, encode, [("system", system), *turns])


def conversation(ids: SpecialIds, encode: Encode, messages: Sequence[tuple[str, str]]) -> Prompt:
    """The same of any messages (role, text), of which one is the user's; an image opens the first of those. The model's
    own system text stands in front where they have none."""

    def message(role: str, text: str) -> list[int]:
        return [*ids.header(encode(role)), *encode(f"\n\n{text}"), ids.end_of_turn]

    told = [*([] if messages[0][0] == "system" else [("system", SYSTEM)]), *messages]
    told = [(role, DATES + text if role == "system" else text) for role, text in told]
    first = [role for role, _ in told].index("user")
    before = [*_flat(message(*each) for each in told[:first]), *ids.header(encode("user")), *encode("\n\n")]
    behind = [*encode(told[first][1].lstrip()), ids.end_of_turn, *_flat(message(*each) for each in told[first + 1 :])]
    behind += [*ids.header(encode("assistant")), *encode("\n\n")]
    return Prompt(tuple(behind), before=tuple(before))


def _flat(messages: Iterable[list[int]]) -> list[int]:
    return [index for message in messages for index in message]
