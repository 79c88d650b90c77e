"""A conversation in the form of OpenAI's clients: what is checked of its messages, and what stands in them.

[
    {"role": "system", "content": "Answer in one word."},
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:..."}}, {"type": "text", ...}]},
    {"role": "assistant", "content": "A cat."},
    {"role": "user", "content": "What colour is it?"},
]

Where pictures are given apart from the messages, {"type": "image"} is the place of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxphoton.messages import quoted

Messages = Sequence[Mapping[str, Any]]

ROLES = ("system", "user", "assistant")
MOST_PICTURES = 16  # of a conversation; how many its context holds, the model says
PLACE = object()  # a picture that is given apart


@dataclass(frozen=True, slots=True)
class Turn:
    """One message.

    Attributes:
      role: one of ROLES.
      text: of all its parts, joined as they are.
      pictures: of its parts, as they were given, or PLACE.
      places: where in `text` each of them stands, ascending; without these they stand in front of it.
    """

    role: str
    text: str
    pictures: tuple[Any, ...] = ()
    places: tuple[int, ...] = field(default=(), compare=False)

    @property
    def parts(self) -> tuple[Any, ...]:
        """Its texts, none of them empty, and PLACE for each picture, in their order."""
        parts, start = list[Any](), 0
        for place in self.places or (0,) * len(self.pictures):
            parts += [self.text[start:place], PLACE]
            start = place
        return tuple(part for part in (*parts, self.text[start:]) if part)


def turns_of(messages: Any) -> tuple[Turn, ...]:
    """The turns of a conversation that waits for an answer. Other keys of a message are passed over.

    Raises:
      TypeError: the messages, one of them or its content are of another type.
      ValueError: there are none, a role is unknown or out of its place, a picture stands where none can, there are
        too many, or nothing is asked at the end. The message names the turn.
    """
    if isinstance(messages, (str, bytes, bytearray, Mapping)) or not isinstance(messages, Sequence):
        raise TypeError(f"messages must be a list of messages, not {type(messages).__name__}")
    if not messages:
        raise ValueError("messages must not be empty")
    turns = tuple(_turn(message, number) for number, message in enumerate(messages))
    last = len(turns) - 1
    if turns[last].role != "user":
        raise ValueError(f"messages[{last}]: the last message must be the user's, not of the role {turns[last].role!r}")
    if not turns[last].text.strip() and not turns[last].pictures and last != first_of_user(turns):
        raise ValueError(f"messages[{last}]: the last message has no text")
    pictures = sum(len(turn.pictures) for turn in turns)
    if pictures > MOST_PICTURES:
        raise ValueError(f"messages: {pictures} pictures; a conversation can have {MOST_PICTURES}")
    return turns


def first_of_user(turns: Sequence[Turn]) -> int:
    """The index of the user's first turn, to which a picture of the whole conversation belongs."""
    return next(number for number, turn in enumerate(turns) if turn.role == "user")


def parted(messages: Any) -> tuple[list[dict[str, Any]], list[Any]]:
    """The messages without their pictures, as an `Ask` takes them, and these, as they were given. One picture at the
    very beginning needs no place in the messages: it stands there anyway.

    Raises:
      TypeError, ValueError: as `turns_of`; or neither text nor picture at the end, or a place without a picture.
    """
    turns = turns_of(messages)
    if not turns[-1].text.strip() and not turns[-1].pictures:
        raise ValueError(f"messages[{len(turns) - 1}]: the last message has neither text nor picture")
    pictures = [picture for turn in turns for picture in turn.pictures]
    for number, turn in enumerate(turns):
        if any(picture is PLACE for picture in turn.pictures):  # never `in`: arrays compare their pixels
            raise ValueError(f"messages[{number}]: a part of it has no picture")
    told = bool(pictures) and (len(pictures) > 1 or turns[0].places != (0,))
    return [{"role": turn.role, "content": _placed(turn) if told else turn.text} for turn in turns], pictures


def _placed(turn: Turn) -> str | list[dict[str, str]]:
    """The content of a turn with places for its pictures."""
    if not turn.pictures:
        return turn.text
    return [{"type": "image"} if part is PLACE else {"type": "text", "text": part} for part in turn.parts]


def _turn(message: Any, number: int) -> Turn:
    where = f"messages[{number}]"
    if not isinstance(message, Mapping):
        raise TypeError(f"{where} must be a mapping with role and content, not {type(message).__name__}")
    role = message.get("role")
    if role not in ROLES:
        raise ValueError(f"{where}: role must be one of {', '.join(ROLES)}, not {quoted(role)}")
    if role == "system" and number:
        raise ValueError(f"{where}: a system message can only be the first")
    text, pictures, places = _content(message.get("content"), where)
    if pictures and role != "user":
        raise ValueError(f"{where}: only the user's messages can have pictures, not those of the role {role!r}")
    return Turn(role, text, pictures, places)


def _content(content: Any, where: str) -> tuple[str, tuple[Any, ...], tuple[int, ...]]:
    """Text and pictures of a message, and where they stand in it; an assistant's content may be null."""
    if content is None:
        return "", (), ()
    if isinstance(content, str):
        return content, (), ()
    if not isinstance(content, (list, tuple)):
        raise TypeError(f"{where}: content must be a text or a list of parts, not {type(content).__name__}")
    text, pictures, places = "", list[Any](), list[int]()
    for number, part in enumerate(content):
        value = _part(part, f"{where}.content[{number}]")
        if part["type"] == "text":
            text += value
        else:
            pictures.append(value)
            places.append(len(text))
    return text, tuple(pictures), tuple(places)


def _part(part: Any, where: str) -> Any:
    """The text, or the picture, of a part."""
    if not isinstance(part, Mapping):
        raise TypeError(f"{where} must be a mapping with a type, not {type(part).__name__}")
    kind = part.get("type")
    if kind not in ("text", "image_url", "image"):
        raise ValueError(f"{where}: type must be 'text', 'image_url' or 'image', not {quoted(kind)}")
    if kind == "image" and "image" not in part:
        return PLACE
    value = part.get(kind)
    if kind == "text" and not isinstance(value, str):
        raise TypeError(f"{where}: text must be a string, not {type(value).__name__}")
    if kind == "image_url" and isinstance(value, Mapping):
        value = value.get("url")
    if value is None:
        raise ValueError(f"{where} has no picture")
    return value
