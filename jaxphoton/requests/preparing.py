"""From an ask to what the engine takes, as far as no image is concerned: made once for each distinct ask."""

from __future__ import annotations

import dataclasses
import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence as Many
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from jaxphoton.constraints.protocol import MakeConstraint
from jaxphoton.constraints.restriction import take_restriction
from jaxphoton.engine.request import Request
from jaxphoton.image.prepare import Prepared
from jaxphoton.models.protocol import Family
from jaxphoton.prompt.tokenizer import Tokenizer
from jaxphoton.requests.adapters import AdapterRegistry
from jaxphoton.requests.ask import Ask
from jaxphoton.requests.reading import Reading, take_reading
from jaxphoton.requests.settings import MAX_SEED, Settings
from jaxphoton.requests.skill import Skill
from jaxphoton.requests.skills import FamilySkills, skill_of
from jaxphoton.requests.tokens import Form, Prompt

if TYPE_CHECKING:
    from jaxphoton.constraints import AnswerGrammars
    from jaxphoton.models.adapters import Adapter

KEPT = 64  # asks


@dataclass(frozen=True, slots=True, eq=False)
class PreparedAsk:
    """An ask ready for any image.

    Attributes:
      skill: what is asked.
      form: the same in the words of the model.
      settings: checked; the seed may still have to be drawn.
      constraint: makes the restriction of an answer, or None.
      reading: how the text of the answer is read.
      adapter: what answers beside the model.
    """

    skill: Skill
    form: Form
    settings: Settings
    constraint: MakeConstraint | None
    reading: Reading = Reading()
    adapter: Adapter | None = None

    def request(self, image: Prepared | Many[Prepared] | None, ask: Ask) -> Request:
        """One request; a seed is drawn where none is given.

        Args:
          image: the picture, or several, or None.

        Raises:
          ValueError: there is no image where one is needed, or there are more or fewer than places for them.
        """
        image, further = self._placed(image)
        if image is None and self.skill.needs_image:
            raise ValueError(f"{self.skill.name} needs an image")
        if image is None and self.form.prompt.values:
            raise ValueError("spatial_refs need an image")
        if image is None and self.form.prompt.image:
            raise ValueError(f"{self.skill.name} needs a text or an image")
        settings = self.settings
        if settings.seed is None:
            settings = dataclasses.replace(settings, seed=secrets.randbelow(MAX_SEED + 1))
        form, asked = self.form, (self.constraint, ask.deadline, ask.priority, self.adapter)
        return Request(form.prompt, form.grammar, settings, image, *asked, further=further)

    def _placed(self, image: Prepared | Many[Prepared] | None) -> tuple[Prepared | None, tuple[Prepared, ...]]:
        """The picture in front, if there is one, and those of the places behind it."""
        given: list[Prepared] = [] if image is None else [image] if isinstance(image, Prepared) else list(image)
        places, front = len(self.form.prompt.pictures), self.form.prompt.image
        most = places + (front is not False)
        if len(given) > most or (places and len(given) < places + bool(front)):
            there = f"{self.skill.name} has places for {_count(most, 'picture')}"
            raise ValueError(f"{there}, and {len(given)} came with it")
        further = len(given) - places
        return (given[0] if further > 0 else None), tuple(given[max(0, further) :])


class AskPreparer:
    """Prepares asks for one model; from any thread. A run asks the same of every image: the newest asks are kept."""

    def __init__(self, skills: FamilySkills, tokenizer: Tokenizer, family: Family, adapters: AdapterRegistry):
        self._skills, self._tokenizer, self._family, self._adapters = skills, tokenizer, family, adapters
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, PreparedAsk] = OrderedDict()

    def prepare(self, ask: Ask) -> PreparedAsk:
        """
        Raises:
          TypeError, ValueError: a skill that there is not, arguments or settings that it does not take.
          UnknownAdapter, UnusableAdapter: an adapter that there is not, or that cannot be used.
          ImportError: a restricted answer, without the packages that it needs.
        """
        prepared = self._without_adapter(ask)
        # Looked up each time: another may have its name by now.
        adapter = None if ask.adapter is None else self._adapters.get(ask.adapter)
        return prepared if adapter is None else dataclasses.replace(prepared, adapter=adapter)

    def _without_adapter(self, ask: Ask) -> PreparedAsk:
        try:
            key = json.dumps([ask.skill, ask.arguments, ask.settings])
        except (TypeError, ValueError, RecursionError):  # of values that JSON has not: they may be wrong, or change
            key = ""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = self._made(ask)
        self._check_room(made.form.prompt)
        if key and len(made.form.prompt.ids) <= self._family.max_context:  # others never run, and may be of megabytes
            with self._lock:
                self._kept[key] = made
                if len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
        return made

    def _made(self, ask: Ask) -> PreparedAsk:
        skill = skill_of(ask.skill)
        skill.check(ask.arguments)
        form = self._skills.form(skill.name, ask.arguments)
        given, restriction = take_restriction(ask.settings) if skill.restricted else (ask.settings, {})
        given, reading = take_reading(given) if skill.writes else (given, Reading())
        constraint = self.grammars.compile(restriction, form.reasoning) if restriction else None
        settings = Settings.parse(given, skill.defaults or self._family.defaults)
        if skill.tokens_per_object and (given or {}).get("max_tokens") is None:  # objects set the budget of ids
            settings = dataclasses.replace(settings, max_tokens=skill.tokens_per_object * settings.max_objects + 1)
        return PreparedAsk(skill, form, settings, constraint, reading)

    def _check_room(self, prompt: Prompt) -> None:
        """Refuses several pictures that no context holds before any of them is decoded.

        Raises:
          ValueError: with the numbers.
        """
        family, count = self._family, len(prompt.pictures) + bool(prompt.image)
        if not prompt.pictures or not family.fixed_prefix:  # elsewhere pictures are of different lengths
            return
        text = family.prefix_lengths[-1] - family.image_tokens + len(prompt.ids)
        need = count * family.image_tokens + text
        if need >= family.max_context:
            raise ValueError(
                f"{_count(count, 'picture')} of {family.image_tokens} positions and {text} of text are {need}; the "
                f"model's context holds {family.max_context}, the answer included"
            )

    @cached_property
    def grammars(self) -> AnswerGrammars:
        """What restricted answers are compiled by."""
        from jaxphoton.constraints import AnswerGrammars

        family = self._family
        # Of several ids that stop any will do.
        return AnswerGrammars(self._tokenizer, family.vocab_size, min(family.stop_ids), family.answer_id)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
