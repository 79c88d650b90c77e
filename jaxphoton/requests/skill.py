"""What a skill is: its arguments, the fields of its results, and how these stand in tables and before people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxphoton.requests.settings import Settings

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


def typed(value: Any, shape: Shape) -> Any:
    """A value for a line: coordinates, whole ones too, as floats."""
    if isinstance(shape, Mapping) and isinstance(value, Mapping):
        return {name: typed(each, shape.get(name, "")) for name, each in value.items()}
    if isinstance(shape, list) and isinstance(value, Sequence):
        return [typed(each, shape[0]) for each in value]
    return float(value) if shape == "number" else value


def fits(value: Any, shape: Shape) -> bool:
    """Whether a value can stand in a table; what is no number among its coordinates is up to whoever draws them."""
    if isinstance(shape, Mapping):
        return isinstance(value, Mapping) and all(fits(value.get(name), each) for name, each in shape.items())
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(each, shape[0]) for each in value)
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
MESSAGE = Kind(
    {"role": "text", "content": "text"}, {"role": "", "content": ""}, lambda message: message["content"], written=True
)
PATH = Kind("text", "")  # an SVG path in fractions of the box beside it

REQUIRED = object()  # the default of an argument that must be given


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a skill.

    Attributes:
      name: of the argument.
      kind: "text", "texts" (a list), "length" (one of `choices` or a number of words), "flag", "places" (points and
        boxes) or "messages" (see `requests.conversation`); the last two not on the command line.
      help: for the command line.
      default: None for what the model does by itself.
    """

    name: str
    kind: Literal["text", "texts", "length", "flag", "places", "messages"]
    help: str = ""
    default: Any = REQUIRED
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Skill:
    """One skill.

    Attributes:
      name: of the skill and of its command.
      help, description: for the command line.
      arguments: in the order in which they are told.
      fields: of its results, the one that answers first.
      asked: what the text that a run fills in for each image is called in its journal; "" where there is none.
      streamed: the field whose text is streamed, if there is one.
      table: its column of a parquet table, a list of structs; None for captions, which have columns of their own.
      needs_image: whether it is refused without one.
      defaults: settings that the user does not give; None for those of the model's texts (`Family.defaults`).
      tokens_per_object: ids that one object costs; 0 where `max_objects` says nothing.
      restricted: whether the settings may restrict its answer (a schema, choices).
      phrase: a result as text for people; None for that of its first field.
      in_runs: whether a run can ask it of many images. It then has a command, a route of its own and columns; one that
        is only for single asks has none of these.
    """

    name: str
    help: str
    description: str
    arguments: tuple[Argument, ...]
    fields: tuple[Field, ...]
    asked: str
    streamed: str | None = None
    table: str | None = None
    needs_image: bool = True
    defaults: Settings | None = None
    tokens_per_object: int = 0
    restricted: bool = False
    phrase: Callable[[Mapping[str, Any]], str] | None = None
    in_runs: bool = True

    def check(self, arguments: Mapping[str, Any]) -> None:
        """
        Raises:
          TypeError: an argument that it does not take, or one that is missing; the message says what it takes.
        """
        takes = {each.name: each for each in self.arguments}
        for name in arguments:
            if name not in takes:
                raise TypeError(f"{self.name} has no argument {name!r}; it takes {', '.join(takes)}")
        for name, each in takes.items():
            if each.default is REQUIRED and name not in arguments:
                raise TypeError(f"{self.name} needs {name}=")

    def shown(self, result: Mapping[str, Any]) -> str:
        """A result as a line of text for people."""
        if self.phrase is not None:
            return self.phrase(result)
        return next((each.kind.shown(result[each.name]) for each in self.fields if each.name in result), "")

    @property
    def writes(self) -> bool:
        """Whether it answers with a text for people."""
        return any(each.kind.written for each in self.fields)

    @property
    def boxes(self) -> bool:
        """Whether it answers with boxes."""
        return any(each.kind is BOXES for each in self.fields)

    @property
    def lists(self) -> Field | None:
        """The field with a list of places, each of which has a row of its own in the skill's table."""
        return next((each for each in self.fields if isinstance(each.kind.shape, list)), None)

    @property
    def columns(self) -> dict[str, Shape]:
        """Those of its table: what was asked, then what was found; a box is its corners."""
        columns: dict[str, Shape] = {self.asked: "text"} if self.asked else {}
        for each in self.fields:
            shape = each.kind.shape[0] if isinstance(each.kind.shape, list) else each.kind.shape
            if each.column != "":
                columns |= shape if isinstance(shape, Mapping) else {each.column or each.name: shape}
        return columns

    def rows(self, result: Mapping[str, Any]) -> list[dict[str, Any]]:
        """A result as rows of its table; none where it has not what answers."""
        if self.fields[0].name not in result:
            return []
        asked = {self.asked: result.get(self.asked, "")} if self.asked else {}
        if self.lists is not None:
            return [asked | each for each in result[self.lists.name]]
        row: dict[str, Any] = dict.fromkeys(self.columns) | asked
        for each in self.fields:
            value = result.get(each.name)
            if each.column != "" and value is not None:
                row |= value if isinstance(each.kind.shape, Mapping) else {each.column or each.name: value}
        return [row]
