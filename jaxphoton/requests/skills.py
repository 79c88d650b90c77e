"""The skills: what each is asked with, and what its results hold.

One entry here is all that requests, batches, exports, reports and the command line know of a skill. What a model is
told, and how its answer is read, its family says (`FamilySkills`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Protocol

from jaxphoton.requests.fields import BOX, BOXES, NOTE, PATH, POINTS, REASONING, TEXT, Field, Kind, Shape
from jaxphoton.requests.settings import REGION_DEFAULTS, TEXT_DEFAULTS, Settings

if TYPE_CHECKING:  # which brings numpy
    from jaxphoton.requests.tokens import Form

REQUIRED = object()  # the default of an argument that must be given


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a skill.

    Attributes:
      name: of the argument.
      kind: "text", "choice" of `choices`, "flag", or "places" (points and boxes; not on the command line).
      help: for the command line.
      default: None for what the model does by itself.
    """

    name: str
    kind: Literal["text", "choice", "flag", "places"]
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
      defaults: settings that the user does not give.
      tokens_per_object: ids that one object costs; 0 where `max_objects` says nothing.
      restricted: whether the settings may restrict its answer (a schema, choices).
      phrase: a result as text for people; None for that of its first field.
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
    defaults: Settings = TEXT_DEFAULTS
    tokens_per_object: int = 0
    restricted: bool = False
    phrase: Callable[[Mapping[str, Any]], str] | None = None

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


SKILLS: dict[str, Skill] = {}


def register(skill: Skill) -> Skill:
    """Adds a skill. Fields of one name are of one kind in all skills.

    Raises:
      ValueError: there is one of this name, or a field of one is of another kind.
    """
    if skill.name in SKILLS:
        raise ValueError(f"there is a skill {skill.name!r} already")
    for each in skill.fields:
        if kind_of(each.name) not in (None, each.kind):
            raise ValueError(f"{skill.name}: the field {each.name!r} of other skills is of another kind")
    SKILLS[skill.name] = skill
    return skill


def skill_of(name: Any) -> Skill:
    """
    Raises:
      ValueError: there is no such skill; the message names those that there are.
    """
    skill = SKILLS.get(name) if isinstance(name, str) else None
    if skill is None:
        raise ValueError(f"skill must be one of {', '.join(SKILLS)}, got {name!r}")
    return skill


def kind_of(name: str) -> Kind | None:
    """The kind of the fields of this name; None if no skill has such a field."""
    return kinds().get(name)


def kinds() -> Mapping[str, Kind]:
    """The kinds of the fields of all skills, by name."""
    return _kinds(tuple(SKILLS))


@cache
def _kinds(names: tuple[str, ...]) -> Mapping[str, Kind]:
    return {each.name: each.kind for name in names for each in SKILLS[name].fields}


def asked_in(result: Mapping[str, Any]) -> str:
    """The text that a result of a run answers; empty where nothing was asked."""
    names = dict.fromkeys(skill.asked for skill in SKILLS.values() if skill.asked)
    return next((str(result[name]) for name in names if result.get(name)), "")


class FamilySkills(Protocol):
    """What a model of a family can be asked."""

    def form(self, skill: str, arguments: Mapping[str, Any]) -> Form:
        """An ask in the words of the model; arguments that are left out, or None, are the model's own choice.

        Raises:
          TypeError, ValueError: wrong arguments, or a skill that this model has not.
        """
        ...


def readable(results: Sequence[Mapping[str, Any]]) -> str:
    """One line for the results of an image, as a run has them (each with its "task")."""
    shown = (SKILLS[result["task"]].shown(result) if result.get("task") in SKILLS else "" for result in results)
    return " | ".join(shown).replace("\n", " ")


def _outline(result: Mapping[str, Any]) -> str:
    box = result.get("bbox")
    return f"an outline in {BOX.shown(box)}" if box else result.get("parse_error", "no outline")


LENGTHS = ("short", "normal", "long")
_OBJECT = Argument("object", "text", "what to find")
_PLACES = Argument("spatial_refs", "places", default=None)

register(
    Skill(
        "caption",
        help="describe images",
        description="Describes images, as many as there are: {key, caption}.",
        arguments=(Argument("length", "choice", "how much to say (default: normal)", "normal", LENGTHS),),
        fields=(Field("caption", TEXT),),
        asked="prompt",
        streamed="caption",
    )
)
register(
    Skill(
        "query",
        help="ask a question about images",
        description="Asks a question about every image: {key, answer}.",
        arguments=(
            Argument("question", "text", "what to ask about every image"),
            Argument(
                "reasoning",
                "flag",
                "let the model think first; its thoughts become 'reasoning' (default: as the model does)",
                None,
            ),
            _PLACES,
        ),
        fields=(Field("answer", TEXT), Field("reasoning", REASONING, column="")),
        asked="question",
        streamed="answer",
        table="answers",
        needs_image=False,
        restricted=True,
    )
)
register(
    Skill(
        "detect",
        help="find objects, as boxes",
        description="Finds every object of a kind: {key, objects}.",
        arguments=(_OBJECT,),
        fields=(Field("objects", BOXES),),
        asked="object",
        table="objects",
        defaults=REGION_DEFAULTS,
        tokens_per_object=3,
    )
)
register(
    Skill(
        "point",
        help="find objects, as points",
        description="Points at every object of a kind: {key, points}.",
        arguments=(Argument("object", "text", "what to point at"), _PLACES),
        fields=(Field("points", POINTS),),
        asked="object",
        table="points",
        defaults=REGION_DEFAULTS,
        tokens_per_object=2,
    )
)
register(
    Skill(
        "segment",
        help="outline an object",
        description="Outlines an object in every image: {key, path, bbox}.",
        arguments=(Argument("object", "text", "what to outline"), _PLACES),
        fields=(Field("path", PATH), Field("bbox", BOX), Field("parse_error", NOTE, column="fault")),
        asked="object",
        streamed="path",
        table="segments",
        defaults=REGION_DEFAULTS,
        phrase=_outline,
    )
)
