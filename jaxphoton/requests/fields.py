"""What the fields of results hold, in the words of tables, lines and people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# The type of a value in a table: "text", "integer" or "number"; a mapping by name; or a list of one of these.
Shape = str | Mapping[str, Any] | list[Any]

CORNERS: Mapping[str, Shape] = dict.fromkeys(("x_min", "y_min", "x_max", "y_max"), "number")
PLACE: Mapping[str, Shape] = dict.fromkeys(("x", "y"), "number")


@dataclass(frozen=True, slots=True)
class Kind:
    """Of a field.

    Attributes:
      shape: of its values in a table.
      nothing: stands in a line whose result has no value. Never `{}`: a column of nothing else is a struct without
        fields, which no parquet file can hold.
      shown: a value as text for people.
      written: a text that the model wrote for people: looked at for faults, put into text files.
      places: its values count as objects found.
      optional: a result may have None.
    """

    shape: Shape
    nothing: Any
    shown: Callable[[Any], str] = str
    written: bool = False
    places: bool = False
    optional: bool = False

    def fits(self, value: Any) -> bool:
        """Whether a value can stand in a table; what is no number among its coordinates is up to whoever draws them."""
        return _fits(value, self.shape)

    def typed(self, value: Any) -> Any:
        """A value for a line: coordinates, whole ones too, as floats."""
        return self.nothing if value is None else _typed(value, self.shape)


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a skill's results.

    Attributes:
      name: in the result, the journal and lines.
      kind: of its values.
      column: its name in the table of the skill, where it has another one there; "" leaves it out.
    """

    name: str
    kind: Kind
    column: str | None = field(default=None)


def _typed(value: Any, shape: Shape) -> Any:
    if isinstance(shape, Mapping) and isinstance(value, Mapping):
        return {name: _typed(each, shape.get(name, "")) for name, each in value.items()}
    if isinstance(shape, list) and isinstance(value, Sequence):
        return [_typed(each, shape[0]) for each in value]
    return float(value) if shape == "number" else value


def _fits(value: Any, shape: Shape) -> bool:
    if isinstance(shape, Mapping):
        return isinstance(value, Mapping) and all(_fits(value.get(name), each) for name, each in shape.items())
    if isinstance(shape, list):
        return isinstance(value, list) and all(_fits(each, shape[0]) for each in value)
    return type(value) in {"text": (str,), "integer": (int,), "number": (int, float)}[shape]


def _box(box: Mapping[str, float]) -> str:
    return f"({box['x_min']:.2f}, {box['y_min']:.2f}) to ({box['x_max']:.2f}, {box['y_max']:.2f})"


def _point(point: Mapping[str, float]) -> str:
    return f"({point['x']:.2f}, {point['y']:.2f})"


def _found(shown: Callable[[Any], str]) -> Callable[[Sequence[Any]], str]:
    """E.g. `1 found: (0.10, 0.20)`."""
    return lambda places: f"{len(places)} found" + (": " + "; ".join(map(shown, places)) if places else "")


TEXT = Kind("text", "", written=True)
NOTE = Kind("text", "", optional=True)  # a text about the answer
INTEGER = Kind("integer", 0)
NUMBER = Kind("number", 0.0)
REASONING = Kind({"text": "text"}, {"text": "", "grounding": []}, lambda thought: thought["text"])
BOXES = Kind([CORNERS], [], _found(_box), places=True)
POINTS = Kind([PLACE], [], _found(_point), places=True)
BOX = Kind(CORNERS, dict.fromkeys(CORNERS, 0.0), _box, places=True, optional=True)
# How many numbers an SVG command takes.
_ARITY = {"M": 2, "L": 2, "T": 2, "H": 1, "V": 1, "C": 6, "S": 4, "Q": 4, "A": 7, "Z": 0}
ARITY = {**_ARITY, **{name.lower(): count for name, count in _ARITY.items()}}
PATH = Kind("text", "")  # an SVG path in fractions of the box beside it
