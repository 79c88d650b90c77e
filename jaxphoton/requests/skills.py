"""The skills: what each is asked with, and what its results hold.

One entry here is all that requests, batches, exports, reports and the command line know of a skill. What a model is
told, and how its answer is read, its family says (`FamilySkills`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from jaxphoton.messages import quoted
from jaxphoton.requests.settings import REGION_DEFAULTS
from jaxphoton.requests.skill import (
    BOX,
    BOXES,
    MESSAGE,
    NOTE,
    PATH,
    POINTS,
    REASONING,
    TEXT,
    Argument,
    Field,
    Kind,
    Skill,
)

if TYPE_CHECKING:  # which brings numpy
    from jaxphoton.requests.tokens import Form

SKILLS: dict[str, Skill] = {}  # those that runs ask: commands, routes, tables and reports are made from these
SINGLE_SKILLS: dict[str, Skill] = {}  # those that are for single asks alone


def register(skill: Skill) -> Skill:
    """Adds a skill. Fields of one name are of one kind in all skills of runs.

    Raises:
      ValueError: there is one of this name, or a field of one is of another kind.
    """
    if skill.name in (*SKILLS, *SINGLE_SKILLS):
        raise ValueError(f"there is a skill {skill.name!r} already")
    for each in skill.fields if skill.in_runs else ():
        if kinds().get(each.name, each.kind) != each.kind:
            raise ValueError(f"{skill.name}: the field {each.name!r} of other skills is of another kind")
    (SKILLS if skill.in_runs else SINGLE_SKILLS)[skill.name] = skill
    return skill


def skill_of(name: Any) -> Skill:
    """
    Raises:
      ValueError: there is no such skill; the message names those that there are.
    """
    known = SKILLS | SINGLE_SKILLS
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"skill must be one of {', '.join(known)}, got {name!r}")
    return known[name]


def kinds() -> Mapping[str, Kind]:
    """The kinds of the fields of all skills of runs, by name."""
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


LENGTHS = ("short", "normal", "long")  # of captions, in most models
MORE_LENGTHS = ("any", "very-short", "medium-length", "very-long")  # that some have, and numbers of words


def slug(name: str) -> str:
    """A name as options have it: `Descriptive (Casual)` -> `descriptive-casual`."""
    return re.sub(r"[\W_]+", "-", name.casefold()).strip("-")


def is_length(text: str) -> bool:
    """Whether it is how the length of a caption may be told, in whichever model."""
    return text in LENGTHS or text in MORE_LENGTHS or (text.isascii() and text.isdecimal() and text[0] != "0")


def caption_arguments(
    length: str | int, type: str | None = None, extra: Sequence[str] = (), name: str | None = None
) -> dict[str, Any]:
    """Those of a caption's arguments that are given."""
    given = {"type": type, "extra": extra or None, "name": name}
    return {"length": length} | {key: value for key, value in given.items() if value is not None}


def only_length(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a caption, for a model whose captions differ in length alone; a number of words as text.

    Raises:
      ValueError: there are others; the message names them.
    """
    given = {name: value for name, value in arguments.items() if value is not None and (name != "extra" or value)}
    if more := [name for name in given if name != "length"]:
        told = ", ".join(f"{name}={quoted(given[name])}" for name in more)
        raise ValueError(f"this model has no caption types: it takes length, and not {told}")
    length = given.get("length")
    return {} if length is None else {"length": str(length) if type(length) is int else length}


_OBJECT = Argument("object", "text", "what to find")
_PLACES = Argument("spatial_refs", "places", default=None)

register(
    Skill(
        "caption",
        help="describe images",
        description="Describes images, as many as there are: {key, caption}.",
        arguments=(
            Argument("length", "length", "how much to say (default: normal)", "normal", (*LENGTHS, *MORE_LENGTHS)),
            Argument("type", "text", "what kind of caption, in models that have several", None),
            Argument("extra", "texts", "what else to say or to leave out, in models with such options", None),
            Argument("name", "text", "of the person in the image, in such models", None),
        ),
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
register(
    Skill(
        "chat",
        help="answer in a conversation",
        description="Answers the last message of a conversation.",
        arguments=(
            Argument("messages", "messages"),
            Argument("reasoning", "flag", default=None),
        ),
        fields=(Field("message", MESSAGE), Field("finish_reason", NOTE)),
        asked="",
        streamed="message",
        needs_image=False,
        restricted=True,
        in_runs=False,
    )
)
