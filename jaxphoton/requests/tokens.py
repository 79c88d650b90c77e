"""What was generated, and how a skill of a family reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jaxphoton.constraints.grammar import FinishReason
from jaxphoton.prompt.detokenizer import Decoder, Detokenizer

Decode = Callable[[Sequence[int]], str]
# One piece of what is known of a result before it is complete; see `requests.submitting`.
Event = Mapping[str, Any]
OnEvent = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as a skill writes it, before it meets its image.

    Attributes:
      ids: token ids behind the image (and behind what every prompt of the family begins with).
      values: (index in `ids`, values fed there besides the id) for each place that carries some.
      before: token ids in front of the image, where the family lets a prompt have any there.
      pictures: the indices in `ids`, ascending, in front of which a further picture stands: one for each of these.
      image: whether there is an image in front of `ids`: True, it asks nothing without one; False, there can be none.
      alone: all ids where no image comes with it, if these are not `before` and `ids`.
      marks: ids that stand among the parts of a picture, where the family's pictures have parts and texts between them.
    """

    ids: tuple[int, ...]
    values: tuple[tuple[int, tuple[float, ...]], ...] = ()
    before: tuple[int, ...] = ()
    pictures: tuple[int, ...] = ()
    image: bool | None = None
    alone: tuple[int, ...] | None = None
    marks: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """One generated id.

    Attributes:
      id: vocabulary id.
      bins: what the region heads chose: (coordinate,) or (width, height); None for text.
      value: the values of those bins, in [0, 1]; fed back instead of the id's embedding.
      logprob: log-probability at temperature 1 among the ids the grammar allowed, plus that of the bins.
    """

    id: int
    bins: tuple[int, ...] | None = None
    value: tuple[float, ...] | None = None
    logprob: float = 0.0


@dataclass(frozen=True, slots=True)
class Generation:
    """Everything one request generated; a stop id is the last token.

    Attributes:
      cut: a text has ended it, and no stop id.
    """

    tokens: tuple[Token, ...]
    finish_reason: FinishReason
    cut: bool = False

    @property
    def content(self) -> tuple[Token, ...]:
        """The tokens without the stop id."""
        return self.tokens[:-1] if self.finish_reason == "stop" and not self.cut else self.tokens


class Reader(Protocol):
    """Reads a generation token by token, for whoever does not wait for its end."""

    def push(self, token: Token, finish: FinishReason | None) -> Sequence[Event]:
        """Takes the next token, the last with a finish reason ("stop": it is the stop id), and tells what is new."""
        ...

    def finish(self) -> Sequence[Event]:
        """What was held back."""
        ...


class Form(Protocol):
    """An ask in the words of a family.

    Attributes:
      prompt: ids after BOS and the image.
      grammar: name of its grammar in `Family.grammars`.
      reasoning: an answer follows the reasoning; a restriction holds for the answer alone.
    """

    @property
    def prompt(self) -> Prompt: ...

    @property
    def grammar(self) -> str: ...

    @property
    def reasoning(self) -> bool: ...

    def parse(self, generation: Generation, decode: Decode) -> dict[str, Any]:
        """The result in the shape of the `moondream` client; its names are those of the skill's fields."""
        ...

    def reader(self, decoder: Decoder) -> Reader | None:
        """None for a skill that is not streamed."""
        ...


class TextReader:
    """Reads a text: {"chunk"} for each piece that is certain.

    Attributes:
      strip: whether the whole is without white space at its ends: what there is inside waits for what follows it.
    """

    def __init__(self, decoder: Decoder, strip: bool = False):
        self.strip = strip
        self._detokenizer = Detokenizer(decoder)
        self._begun, self._space = False, ""

    def push(self, token: Token, finish: FinishReason | None) -> Sequence[Event]:
        # The stop id is not text.
        return self._chunk("" if finish == "stop" else self._detokenizer.push(token.id))

    def finish(self) -> Sequence[Event]:
        return self._chunk(self._detokenizer.finish())

    def _chunk(self, piece: str) -> Sequence[Event]:
        if self.strip:
            text = self._space + piece if self._begun else piece.lstrip()
            piece = text.rstrip()
            self._begun, self._space = self._begun or bool(piece), text[len(piece) :]
        return [{"chunk": piece}] if piece else []
