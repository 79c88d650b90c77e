"""What is asked about every image of a run, and the answers in the words of the journal."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jaxphoton.batch.described import asked_fields, described
from jaxphoton.batch.errors import BatchError
from jaxphoton.batch.sources.item import Item
from jaxphoton.batch.variables import OWN, fill, is_variable, is_word, variables
from jaxphoton.messages import listed, quoted, short
from jaxphoton.requests.ask import Ask
from jaxphoton.requests.skill import Skill
from jaxphoton.requests.skills import (
    SKILLS,
    FamilySkills,
    caption_arguments,
    is_length,
    slug,
)

_TEXT_SETTINGS = ("temperature", "top_p", "max_tokens", "seed")


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to ask.

    Attributes:
      kind: the name of a skill.
      text: the question or the object, of a caption the prompt that takes the place of the model's own; may have
        variables and doubled braces (see `variables.fill`).
      length, type, extra, name: of a caption without a prompt, see `Model.caption`.
      reasoning: of a query: whether the model thinks first; None leaves it to the model.
      adapter: the name of what answers beside the model; None for nothing.
    """

    kind: str
    text: str = ""
    length: str = "normal"
    reasoning: bool | None = None
    adapter: str | None = None
    type: str | None = None
    extra: tuple[str, ...] = ()
    name: str | None = None

    def __post_init__(self):
        # One spelling each, so that a journal goes on with another.
        object.__setattr__(self, "type", None if self.type is None else slug(self.type))
        object.__setattr__(self, "extra", tuple(dict.fromkeys(map(slug, self.extra))))

    @property
    def skill(self) -> Skill:
        """What its results are those of."""
        return SKILLS[self.kind]

    def check(self, skills: FamilySkills) -> None:
        """
        Raises:
          ValueError: a model with these skills cannot be asked this, whatever the image.
        """
        skills.form(*self.asked("?"))

    def asked(self, text: str) -> tuple[str, dict[str, Any]]:
        """Skill and arguments for the model, with the text of one image."""
        if self.kind == "caption" and not self.text:
            return "caption", caption_arguments(self.length, self.type, self.extra, self.name)
        if self.kind == "caption":
            return "query", {"question": text, "reasoning": False}
        asked = {self.skill.asked: text} if self.skill.asked else {}
        return self.kind, asked | ({} if self.reasoning is None else {"reasoning": self.reasoning})

    def result(self, ask: Ask, result: Any) -> dict[str, Any]:
        """A result as the journal has it."""
        name = self.skill.asked
        if self.kind == "caption" and self.text:
            asked, found = {name: ask.arguments["question"]}, {"caption": result["answer"]}
        else:
            asked = {name: ask.arguments[name]} if name in ask.arguments else {}
            asked = self._told if self.kind == "caption" else asked
            found = {each.name: result[each.name] for each in self.skill.fields if each.name in result}
        end = {"tokens": len(result.tokens), "finish_reason": result.finish_reason}
        end |= {"retries": result.retries} if result.retries else {}
        return {"task": self.kind} | asked | found | end

    def description(self) -> str:
        """In the header of a journal: `caption:normal`, `caption:Say it in rhyme.`, `query:Is it day? (reasoning)`,
        `caption:short (type danbooru, extra no-text lighting, name 'Ann')`.

        A prompt that reads like a length, or like the last, stands in quotation marks."""
        if self.kind == "caption" and self.text:
            return f"caption:{repr(self.text) if asked_fields(self.text) else self.text}"
        if self.kind == "caption":
            return f"caption:{described(self.length, self.type, self.extra, self.name)}"
        how = {None: "", True: " (reasoning)", False: " (no reasoning)"}[self.reasoning]
        return f"{self.kind}:{self.text}{how}"

    @property
    def _told(self) -> dict[str, str]:
        """What a result says of how it was asked for."""
        return {"length": self.length} | ({} if self.type is None else {"type": self.type})


@dataclass(frozen=True, slots=True)
class Questions:
    """All that is asked about every image.

    Attributes:
      each: at least one.
      settings: how to generate, see `Model`.
      captions: of every image, from consecutive seeds.
      prefix, suffix: put around every caption; may have variables.
      extension: of text files beside the images, for the variable `{caption}`.
      known: columns of the images, see `over`; None: every word that is no variable of its own is a column.
      asked: the questions in the order in which they are asked, each as often as it is, with its settings.

    Raises:
      BatchError: several captions of an image would all be the same.
    """

    each: tuple[Question, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    captions: int = 1
    prefix: str = ""
    suffix: str = ""
    extension: str = ".txt"
    known: frozenset[str] | None = None
    asked: tuple[tuple[Question, dict[str, Any]], ...] = field(init=False)

    def __post_init__(self):
        if self.captions > 1 and not self.settings.get("temperature"):
            raise BatchError("several captions of an image need a temperature: greedy ones are all the same")
        asked = tuple((question, settings) for question in self.each for settings in self._settings_of(question))
        object.__setattr__(self, "asked", asked)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the texts need."""
        return tuple(name for name in self._variables if name not in OWN)

    @property
    def possible_columns(self) -> tuple[str, ...]:
        """What stands in braces, and is a variable only where a column has this name."""
        return tuple(name for name in self._names if not is_word(name))

    @property
    def varies(self) -> bool:
        """Whether images are asked different things."""
        return bool(self._variables)

    @property
    def classes_vary(self) -> bool:
        """Whether images are asked for boxes of different objects."""
        names = (name for question in self.each if question.skill.boxes for name in variables(question.text))
        return any(is_variable(name, self.known) for name in names)

    @property
    def tells_adapters(self) -> bool:
        """Whether answers differ in their adapter, so that each result says which it has."""
        return len({question.adapter for question in self.each}) > 1

    def adapters(self, digests: Callable[[Collection[str]], Mapping[str, str]]) -> dict[str, Any]:
        """For the header of the journal: of each question in turn the adapter and its digest; nothing without any.

        Args:
          digests: of the adapters of some names.
        """
        names = [question.adapter for question in self.each]
        found = digests({name for name in names if name is not None}) if any(names) else {}
        return {"adapters": ["" if name is None else f"{name} {found[name]}" for name in names]} if found else {}

    @property
    def plain_words(self) -> tuple[str, ...]:
        """What stands in braces like a variable, and is none."""
        return tuple(name for name in self._names if is_word(name) and not is_variable(name, self.known))

    @property
    def _variables(self) -> tuple[str, ...]:
        return tuple(name for name in self._names if is_variable(name, self.known))

    @property
    def _names(self) -> tuple[str, ...]:
        texts = (*(question.text for question in self.each), self.prefix, self.suffix)
        return tuple(dict.fromkeys(name for text in texts for name in variables(text)))

    def over(self, columns: Collection[str]) -> Questions:
        """The same for images with these columns. Where there are none, braces around another name are text.

        Raises:
          BatchError: there are some, but not one that a text needs.
        """
        if columns and (lacking := [name for name in self.columns if name not in columns]):
            there = listed(dict.fromkeys([*OWN, *columns]))
            word = f"{{{short(lacking[0])}}}"
            raise BatchError(f"{word} is no variable here: there are {there}; for the text itself write {{{word}}}")
        return replace(self, known=frozenset(columns))

    def check(self, skills: FamilySkills) -> None:
        """
        Raises:
          BatchError: a model with these skills cannot be asked all of this.
        """
        try:
            for question in self.each:
                question.check(skills)
        except ValueError as error:
            raise BatchError(str(error)) from error

    def asks(self, item: Item) -> tuple[Ask, ...]:
        """What to ask about an image.

        Raises:
          EntryError: it has not what a text needs.
        """
        self._around(item)  # lest it turn out when the image is done
        return tuple(
            Ask(
                *question.asked(fill(question.text, item, self.extension, self.known)),
                settings,
                adapter=question.adapter,
            )
            for question, settings in self.asked
        )

    def results(self, item: Item, asks: Sequence[Ask], results: Sequence[Any]) -> tuple[dict[str, Any], ...]:
        """The answers to `asks`, in the same order."""
        answered = zip(self.asked, asks, results, strict=True)
        rows = [question.result(ask, result) for (question, _), ask, result in answered]
        if self.tells_adapters:
            rows = [
                row | {"adapter": question.adapter or ""} for row, (question, _) in zip(rows, self.asked, strict=True)
            ]
        for row in rows if self.prefix or self.suffix else ():
            if "caption" in row:
                before, after = self._around(item)
                row["caption"] = before + row["caption"].strip() + after
        return tuple(rows)

    def description(self) -> dict[str, Any]:
        """For the header of the journal."""
        asked = [question.description() for question in self.each]
        changed = {"captions_per_image": self.captions, "prefix": self.prefix, "suffix": self.suffix}
        return {"tasks": asked, "generation": dict(self.settings)} | changed

    def _around(self, item: Item) -> tuple[str, str]:
        """Prefix and suffix of an image's captions."""
        before, after = (fill(text, item, self.extension, self.known) for text in (self.prefix, self.suffix))
        return before, after

    def _settings_of(self, question: Question) -> list[dict[str, Any]]:
        places = question.skill.tokens_per_object > 0
        settings = {n: v for n, v in self.settings.items() if n in _TEXT_SETTINGS or places}
        if question.kind != "caption" or self.captions == 1:
            return [settings]
        first = settings.get("seed")
        return [settings | ({} if first is None else {"seed": (first + i) % 2**32}) for i in range(self.captions)]


def parse_questions(text: str, default: Mapping[str, Question]) -> tuple[Question, ...]:
    """Tasks from a list such as "caption:short,detect:person,query:Is it day, or night?".

    A comma separates where a task follows it. `default` has the tasks that may stand without a text; what it says of
    captions goes for `caption:LENGTH` and `caption:TYPE` too, but for a prompt.

    Raises:
      BatchError: something else.
    """
    found = []
    for part in re.split(rf",(?=(?:{'|'.join(SKILLS)})(?:[:,]|$))", text):
        kind, _, about = part.partition(":")
        if kind not in SKILLS:
            raise BatchError(f"task {part!r} is none of {', '.join(SKILLS)}, with a text as in detect:person")
        if not about.strip() and kind not in default and SKILLS[kind].asked:
            raise BatchError(
                f"task {kind!r} needs a text, as in {kind}:{'person' if kind != 'query' else 'Is it day?'}"
            )
        if not about.strip():
            found.append(default.get(kind, Question(kind)))
        elif kind == "caption":
            if not re.fullmatch(r"[\w() -]+", about):
                raise BatchError(f"task {part!r}: {quoted(about)} is neither a length nor a type of captions")
            how = {"length" if is_length(about.strip()) else "type": about.strip()}
            found.append(replace(default.get("caption", Question("caption")), text="", **how))
        else:
            found.append(Question(kind, about.strip()))
    return tuple(found)
