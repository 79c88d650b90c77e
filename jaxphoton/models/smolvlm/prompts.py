"""The chat form of SmolVLM2: turns one under another, with pictures wherever they stand; and what a picture becomes.

What users write is encoded apart from special tokens, so that nothing in it ends a message; but with all else that
stands between the same two special tokens, since text is cut into ids as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from jaxphoton.models.protocol import IMAGE
from jaxphoton.models.smolvlm.config import SpecialTokens
from jaxphoton.requests.tokens import Prompt

Encode = Callable[[str], list[int]]


def no_ids(text: str) -> list[int]:
    """An encoder for asks that are only checked."""
    return []


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    Attributes:
      role: "system", "user" or "assistant".
      parts: texts, and None where a picture stands.
    """

    role: str
    parts: tuple[str | None, ...]


def prompt(tokens: SpecialTokens, encode: Encode, messages: Sequence[Message], front: int) -> Prompt:
    """The prompt that asks for the answer to the last message.

    Args:
      messages: if none has a picture, one may still come with the prompt: it then begins the user's first.
      front: ids that the prefix has room for in front of its picture. With more of them there is no prefix, and
        what would be its picture stands behind as all others do.
    """
    marks = (tuple(encode("\n")), tuple(encode("\n\n")))
    stream = _stream(tokens, encode, messages)
    if None in stream:
        first = stream.index(None)
        if first > front:
            return _behind(stream, marks, False)
        return _behind(stream[first + 1 :], marks, True, stream[:first])
    user = next(number for number, message in enumerate(messages) if message.role == "user")
    shown = Message("user", (None, *messages[user].parts))
    asked = _stream(tokens, encode, [*messages[:user], shown, *messages[user + 1 :]])
    first = asked.index(None)
    return _behind(asked[first + 1 :], marks, None, asked[:first], stream)


def _behind(
    stream: Sequence[int | None],
    marks: tuple[tuple[int, ...], ...],
    image: bool | None,
    before: Iterable[int | None] = (),
    alone: Iterable[int | None] | None = None,
) -> Prompt:
    """A prompt of what stands behind the picture of its prefix, with places for further ones."""
    places = [index for index, each in enumerate(stream) if each is None]
    return Prompt(
        _ids(stream),
        before=_ids(before),
        pictures=tuple(index - number for number, index in enumerate(places)),
        image=image,
        alone=None if alone is None else _ids(alone),
        marks=marks,
    )


def _ids(stream: Iterable[int | None]) -> tuple[int, ...]:
    return tuple(each for each in stream if each is not None)


def _stream(tokens: SpecialTokens, encode: Encode, messages: Iterable[Message]) -> list[int | None]:
    """The ids behind the first, None where a picture stands."""
    stream, text = list[int | None](), ""
    for message in messages:
        begins = bool(message.parts) and message.parts[0] is None
        text += f"{message.role.capitalize()}:{'' if begins else ' '}"
        for part in message.parts:
            if part is None:
                stream += [*(encode(text) if text else ()), None]
                text = ""
            else:
                text += part
        stream += [*(encode(text) if text else ()), tokens.end_of_utterance]
        text = "\n"
    return [*stream, *encode(f"{text}Assistant:")]


def expansion(
    tokens: SpecialTokens, frame_tokens: int, tiling: tuple[int, int], marks: Sequence[Sequence[int]]
) -> list[int]:
    """What stands in a prompt for a picture: its frames by name, rows of tiles on lines of their own.

    Args:
      frame_tokens: embeddings of a frame; IMAGE stands for one.
      tiling: rows and columns of tiles; none of a picture that is not cut.
      marks: ids of a line's end, and of two: behind the last row there are both, which may be an id of their own.
    """
    rows, columns = tiling
    frame, ids = [IMAGE] * frame_tokens, list[int]()
    for row in range(rows):
        for column in range(columns):
            ids += [tokens.fake, tokens.tile(row, column), *frame]
        ids += marks[row == rows - 1]
    return [*ids, tokens.fake, tokens.global_image, *frame, tokens.fake]
