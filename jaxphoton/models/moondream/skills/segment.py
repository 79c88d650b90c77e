"""Segment: the outline of what a word names, as an SVG path in a box."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxphoton.constraints.grammar import FinishReason, Grammar, State
from jaxphoton.models.moondream.config import TokenizerConfig
from jaxphoton.models.moondream.prompts import Prompt, SpatialRefs, segment_prompt
from jaxphoton.models.moondream.skills.detect import box
from jaxphoton.prompt.detokenizer import Decoder
from jaxphoton.requests.skill import ARITY
from jaxphoton.requests.tokens import Decode, Event, Generation, Reader, Token

if TYPE_CHECKING:
    from jaxphoton.models.moondream.skills import MoondreamSkills

# Which numbers of an arc are lengths: it has an angle and two flags too.
ARC_LENGTHS = (0, 1, 5, 6)

UNITS = 960  # of one side
LAST_RESERVED_ID = 20  # ids up to here are never text


@dataclass(frozen=True, slots=True)
class Segment:
    """A segmentation request. Result: {"path": SVG path, "bbox": {"x_min", "y_min", "x_max", "y_max"}}.

    The box is in fractions of the picture and cut at its border, the path in fractions of the box. What was generated
    need not be a box and a path: then `bbox` is None or `path` what came before the fault, and "parse_error" says
    what is wrong. This is the path that the language model writes; the network that refines it to a mask is not here.
    """

    prompt: Prompt
    grammar: str = "segment"
    reasoning: bool = False

    @staticmethod
    def grammars(config: TokenizerConfig) -> Mapping[str, Grammar]:
        """Coordinates, sizes and text in any order up to the end of sequence."""
        if config.templates.get("segment") is None:
            return {}
        return {"segment": Grammar({"outline": State(stop=frozenset({config.eos_id}), reads=True)})}

    @classmethod
    def asked(cls, model: MoondreamSkills, object: str, spatial_refs: SpatialRefs | None = None) -> Segment:
        return cls(segment_prompt(model.config, model.encode, object, spatial_refs))

    def parse(self, generation: Generation, decode: Decode) -> dict[str, Any]:
        outline = Outline(decode)
        for token in generation.content:
            outline.push(token)
        return outline.result()

    def reader(self, decoder: Decoder) -> Reader | None:
        return _OutlineReader(decoder)


class _OutlineReader:
    """Reads a segmentation for whoever does not wait for its end."""

    def __init__(self, decoder: Decoder):
        self._outline = Outline(lambda ids: decoder.decode(list(ids)))

    def push(self, token: Token, finish: FinishReason | None) -> Sequence[Event]:
        return [] if finish == "stop" else self._outline.push(token)

    def finish(self) -> Sequence[Event]:
        return []


class Outline:
    """Reads a segmentation token by token.

    Attributes:
      path: as far as it is known; grows by whole commands.
      bbox: once a centre and a size were read.
    """

    def __init__(self, decode: Decode):
        self.path = ""
        self.bbox: dict[str, float] | None = None
        self._decode = decode
        self._centre: list[float] = []
        self._command, self._numbers = "", list[int]()
        self._open, self._minus = False, False  # no numbers yet behind the command; a minus waits for its number
        self._fault = ""

    def push(self, token: Token) -> list[dict[str, Any]]:
        """Takes the next token (the stop id is none) and tells what is new: {"bbox"}, {"chunk": more of the path}."""
        box, sent = self.bbox, len(self.path)
        if token.value is not None:
            self._place(token.value)
        elif token.id > LAST_RESERVED_ID:
            for part in re.findall(r"[0-9]+|\S", self._decode([token.id])):
                self._fault = self._fault or self._read(part)
        events: list[dict[str, Any]] = [] if self.bbox is box else [{"bbox": self.bbox}]
        return events + ([{"chunk": self.path[sent:]}] if len(self.path) > sent else [])

    def result(self) -> dict[str, Any]:
        """What was read, as `Segment` describes it."""
        fault = self._fault or self._unfinished()
        return {"path": self.path, "bbox": self.bbox, **({"parse_error": fault} if fault else {})}

    def _place(self, value: tuple[float, ...]) -> None:
        if len(value) == 1:
            self._centre.append(value[0])
        elif self.bbox is None and len(self._centre) >= 2:
            self.bbox = box(*self._centre[:2], *value, clamp=True)

    def _read(self, part: str) -> str:
        """Takes one command, minus or number; returns what is wrong with it."""
        if part.isascii() and part.isdigit():
            return self._take(int(part))
        if self._minus:
            return f"a minus before {part!r}"
        if part == "-":
            self._minus = True
            return ""
        if part not in ARITY:
            return f"{part!r} is no part of a path"
        if fault := self._unended():
            return fault
        if not self.path and part not in "Mm":
            return f"the path begins with {part}, not M"
        self._command, self._open = part, ARITY[part] > 0
        if not self._open:
            self._append(part)
        return ""

    def _take(self, number: int) -> str:
        number, self._minus = -number if self._minus else number, False
        arity = ARITY.get(self._command, 0)
        if not arity:
            return f"the number {number} belongs to no command"
        self._numbers.append(number)
        if len(self._numbers) == arity:
            lengths = ARC_LENGTHS if arity == 7 else range(arity)
            scaled = [_fraction(n) if i in lengths else str(n) for i, n in enumerate(self._numbers)]
            self._append(" ".join([self._command, *scaled] if self._open else scaled))
            self._numbers, self._open = [], False
        return ""

    def _append(self, piece: str) -> None:
        self.path += f" {piece}" if self.path else piece

    def _unended(self) -> str:
        """What the newest command lacks, if anything."""
        if not self._open and not self._numbers and not self._minus:
            return ""
        count, arity = len(self._numbers), ARITY.get(self._command, 0)
        return f"{self._command} takes {arity} numbers, {count} were left"

    def _unfinished(self) -> str:
        if self.bbox is None:
            return "no box: two coordinates and a size were expected"
        return self._unended() if self.path or self._command else "no path"


def _fraction(number: int) -> str:
    """A length in UNITS as a fraction with at most three decimals."""
    text = f"{number / UNITS:.3f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
