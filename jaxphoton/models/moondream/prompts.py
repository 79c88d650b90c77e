"""Prompts of the skills as token ids, from the templates in the model's settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

from jaxphoton.messages import quoted
from jaxphoton.models.moondream.config import TokenizerConfig
from jaxphoton.models.protocol import Prompt
from jaxphoton.requests.conversation import Turn, first_of_user

Encode = Callable[[str], list[int]]
SpatialRefs = Iterable[Sequence[float]]

_REF_FORMS = "a point (x, y) or a box (x_min, y_min, x_max, y_max), each from 0 to 1"


def caption_prompt(config: TokenizerConfig, length: str = "normal") -> Prompt:
    """The prompt of a caption.

    Raises:
      TypeError: `length` is not a string.
      ValueError: the model has no such length.
    """
    template = _template(config, "caption")
    if not isinstance(length, str):
        raise TypeError(f"length must be a string, not {type(length).__name__}")
    if template.get(length) is None:
        allowed = ", ".join(repr(name) for name, ids in template.items() if ids is not None)
        raise ValueError(f"length must be one of {allowed}, not {length!r}")
    return Prompt(tuple(template[length]))


def query_prompt(
    config: TokenizerConfig,
    encode: Encode,
    question: str,
    reasoning: bool = False,
    spatial_refs: SpatialRefs | None = None,
) -> Prompt:
    """The prompt of a question.

    Args:
      config: templates and special ids.
      encode: text to ids, without special tokens.
      question: any text; surrounding whitespace is dropped.
      reasoning: let the model think before it answers.
      spatial_refs: points (x, y) and boxes (x_min, y_min, x_max, y_max) the question refers to, from 0 to 1.

    Raises:
      TypeError: the question or a reference is of the wrong type.
      ValueError: the question is empty, a reference is out of range, or the model cannot do it.
    """
    template = _template(config, "query")
    text = _stripped(question, "question")
    return _assembled(config, template["prefix"], spatial_refs, encode(text), _opener(template, reasoning))


def chat_prompt(config: TokenizerConfig, encode: Encode, turns: Sequence[Turn], reasoning: bool = False) -> Prompt:
    """The prompt that asks for the next turn of the assistant: a question and its answer for each of those before.

    No Moondream was trained on conversations; of one turn this is the prompt of a question. Texts keep their
    whitespace. What the system says stands before the user's first text, with a blank line between them. The pictures
    of a turn stand at its start; the first of the user's first turn in front of all, where it may be shared.

    Args:
      turns: the last is the user's; if none has pictures, there may be one in front.

    Raises:
      ValueError: the model cannot do it.
    """
    template = _template(config, "query")
    answers, opener = _opener(template, False), _opener(template, reasoning)
    first = turns[first_of_user(turns)]
    ids, places, system = list[int](), list[int](), ""
    for turn in turns:
        if turn.role == "system":
            system = turn.text
        elif turn.role == "assistant":
            ids += [*answers, *encode(turn.text)]
        else:
            places += [len(ids)] * (len(turn.pictures) - bool(turn is first and turn.pictures))
            text = "\n\n".join(filter(None, (system, turn.text)))
            ids += [*template["prefix"], *encode(text)]
            system = ""
    if any(turn.pictures for turn in turns):
        return Prompt((*ids, *opener), pictures=tuple(places), image=bool(first.pictures))
    return Prompt((*ids, *opener), image=None if turns[-1].text.strip() else True)


def _opener(template: Mapping[str, Any], reasoning: bool) -> Sequence[int]:
    """The ids behind a question: its answer follows, or the reasoning before it."""
    if reasoning and template.get("reasoning_prefix") is None:
        raise ValueError("this model cannot reason: ask with reasoning=False")
    if reasoning:
        return template["reasoning_prefix"]
    opener = template.get("answer_prefix")
    return template.get("suffix", ()) if opener is None else opener


def reasons_by_default(config: TokenizerConfig) -> bool:
    """Whether a question is answered after reasoning where nobody says."""
    return bool((config.templates.get("query") or {}).get("reasoning_default", False))


def detect_prompt(config: TokenizerConfig, encode: Encode, object: str) -> Prompt:
    """The prompt that asks for the boxes of an object ("red car").

    Raises:
      TypeError: the object is not a string.
      ValueError: it is empty, or the model cannot detect.
    """
    return _object_prompt(config, "detect", encode, object, None, " ")


def point_prompt(
    config: TokenizerConfig, encode: Encode, object: str, spatial_refs: SpatialRefs | None = None
) -> Prompt:
    """The prompt that asks for points on an object; `spatial_refs` as in `query_prompt`.

    Raises:
      TypeError: the object or a reference is of the wrong type.
      ValueError: the object is empty, a reference is out of range, or the model cannot point.
    """
    return _object_prompt(config, "point", encode, object, spatial_refs, " ")


def segment_prompt(
    config: TokenizerConfig, encode: Encode, object: str, spatial_refs: SpatialRefs | None = None
) -> Prompt:
    """The prompt that asks for the outline of an object; `spatial_refs` as in `query_prompt`.

    Raises:
      TypeError: the object or a reference is of the wrong type.
      ValueError: the object is empty, a reference is out of range, or the model cannot segment.
    """
    return _object_prompt(config, "segment", encode, object, spatial_refs, "")


def _object_prompt(
    config: TokenizerConfig, skill: str, encode: Encode, object: str, refs: SpatialRefs | None, lead: str
) -> Prompt:
    """`lead` stands before the object where the family's template does not say."""
    template = _template(config, skill)
    text = template.get("object_prefix", lead) + _stripped(object, "object")
    return _assembled(config, template["prefix"], refs, encode(text), template["suffix"])


def _template(config: TokenizerConfig, skill: str) -> dict[str, Any]:
    template = config.templates.get(skill)
    if template is None:
        known = ", ".join(name for name, value in config.templates.items() if value is not None) or "none"
        raise ValueError(f"this model has no prompt for {skill!r}; it has: {known}")
    return template


def _stripped(text: str, what: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{what} must be a string, not {type(text).__name__}")
    if not text.strip():
        raise ValueError(f"{what} must not be empty")
    return text.strip()


def _assembled(
    config: TokenizerConfig,
    prefix: Sequence[int],
    refs: SpatialRefs | None,
    text: Sequence[int],
    opener: Sequence[int],
) -> Prompt:
    ids, values = list(prefix), []
    if refs is not None and not isinstance(refs, Iterable):
        raise TypeError(f"spatial_refs must be a list, each {_REF_FORMS}, not {quoted(refs)}")
    for ref in () if refs is None else refs:
        for embedded in _ref_values(ref):
            values.append((len(ids), embedded))
            ids.append(config.coord_id if len(embedded) == 1 else config.size_id)
    return Prompt((*ids, *text, *opener), tuple(values))


def _ref_values(ref: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    """The embedded values of one reference: two coordinates; for a box those of its centre, and its size."""
    try:
        numbers = tuple(ref)
    except TypeError:
        raise TypeError(f"a spatial reference is {_REF_FORMS}, not {quoted(ref)}") from None
    if not all(isinstance(number, Real) and not isinstance(number, bool) for number in numbers):
        raise TypeError(f"a spatial reference is {_REF_FORMS}, not {quoted(ref)}")
    numbers = tuple(float(number) for number in numbers)
    if len(numbers) not in (2, 4) or not all(math.isfinite(n) and 0 <= n <= 1 for n in numbers):
        raise ValueError(f"a spatial reference is {_REF_FORMS}, not {quoted(ref)}")
    if len(numbers) == 2:
        return (numbers[0],), (numbers[1],)
    left, top, right, bottom = numbers
    if left > right or top > bottom:
        raise ValueError(f"the corners of a box are ordered (x_min, y_min, x_max, y_max), not {quoted(ref)}")
    return ((left + right) / 2,), ((top + bottom) / 2,), (right - left, bottom - top)
