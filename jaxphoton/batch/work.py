"""What a run is about: its images, what is asked of them, where the results go. Known before anything is done."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from jaxphoton.batch.checks import path
from jaxphoton.batch.errors import BatchError, OptionError
from jaxphoton.batch.exports import ExportOptions, form_of
from jaxphoton.batch.exports.existing import ExistingTexts
from jaxphoton.batch.model import RunModel
from jaxphoton.batch.options import WHOLE, RunOptions
from jaxphoton.batch.places import Places, input_files, journal_of
from jaxphoton.batch.questions import Question, Questions, parse_questions
from jaxphoton.batch.sources import Selection, Source, SourceOptions, open_source
from jaxphoton.batch.sources.retry import RetryPolicy
from jaxphoton.batch.variables import CAPTION_COLUMNS
from jaxphoton.messages import listed, quoted
from jaxphoton.requests.ask import Ask
from jaxphoton.requests.settings import Settings
from jaxphoton.requests.skills import SKILLS

Asked = str | Ask | Question | Sequence[Ask | Question]
Inputs = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

_SETTINGS = tuple(each.name for each in fields(Settings))


@dataclass(frozen=True, slots=True)
class Work:
    """All that a run is about.

    Attributes:
      inputs: as they were named.
      existing: which images have their texts already.
      files_read: those that the run reads, of those that were named, and those that it has to keep.
    """

    inputs: tuple[str, ...]
    options: RunOptions
    questions: Questions
    source: Source
    selection: Selection
    places: Places
    exports: ExportOptions
    existing: ExistingTexts
    files_read: tuple[str, ...]

    @classmethod
    def of(cls, inputs: Inputs, out: str | os.PathLike[str] | None, ask: Asked, options: RunOptions) -> Work:
        """Opens the source; reads no image, and writes nothing.

        Raises:
          BatchError: an input, an option or something asked that cannot be; the message names it.
        """
        specs = _specs(inputs)
        questions = _questions(ask, options)
        output = options.output
        selection = Selection(options.inputs.shard, options.inputs.limit)
        places = _places(None if out is None else _path("out", out), options)
        exports = ExportOptions(output.existing, extension=output.extension, image_suffix=output.image_suffix)
        existing = ExistingTexts(places.out, places.form, exports, {each.kind for each in questions.each})
        source = open_source(specs, _source_options(options, questions, existing))
        if columns := (*questions.columns, *questions.possible_columns):
            questions = questions.over(source.columns(columns))
        files = (*input_files(specs), *output.keep)
        return cls(specs, options, questions, source, selection, places, exports, existing, files)

    def settings(self, model: RunModel) -> dict[str, Any]:
        """What changes the results, as the header of the journal has it."""
        inputs = self.options.inputs
        settings = {
            "input": [spec.rstrip("/") or spec for spec in self.inputs],
            "columns": {"image": inputs.image_column, "key": inputs.key_column, "root": inputs.root}
            # Only where it is asked for: journals from before this option go on.
            | ({"exclude": list(inputs.exclude)} if inputs.exclude else {}),
            **self.questions.description(),
            **self.questions.adapters(model.adapter_digests),
            **model.settings,
        }
        places = self.places
        if places.form == "webdataset" and places.one_file is not None and places.shard != WHOLE:
            settings["shard"] = "/".join(map(str, places.shard))  # the tar of one shard would replace that of another
        return settings

    def notes(self) -> list[str]:
        """What is worth a word before the work."""
        words = self.questions.plain_words
        return [f"no variables, so left as they are: {listed(f'{{{word}}}' for word in words)}"] if words else []

    def check(self) -> None:
        """Finds out before the work whether its output can be made.

        Raises:
          BatchError: it cannot.
        """
        questions, places, output = self.questions, self.places, self.options.output
        out = places.out
        if self.options.inputs.dedupe != "none" and questions.varies:
            raise OptionError("{dedupe} is for images that are all asked the same: texts with variables are not")
        places.check(self.files_read, self.source)
        if places.form in ("coco", "yolo") and not any(each.skill.boxes for each in questions.each):
            raise OptionError(
                "{out} {place}: {kind} is for boxes, and nothing is detected", place=out, kind=places.form
            )
        if places.form == "yolo" and questions.classes_vary and places.shard[1] > 1:
            # No shard knows what those of the others ask for.
            raise BatchError("classes are numbered by what all images ask for: with variables, yolo is for a whole run")
        texts = any(each.skill.writes for each in questions.each)
        if places.form in ("sidecar", "webdataset") and output.extension != ".json" and not texts:
            end = output.extension
            raise OptionError("{out} {place}: {end} files are for texts: give {extension} .json", place=out, end=end)


def _specs(inputs: Inputs) -> tuple[str, ...]:
    if isinstance(inputs, (str, bytes, os.PathLike)) or not isinstance(inputs, Iterable):
        return (_path("inputs", inputs),)
    return tuple(_path("inputs", each) for each in inputs)


def _path(name: str, value: Any) -> str:
    try:
        return path(value)
    except ValueError as error:
        raise OptionError(f"{{{name}}} must be {error}, not {{value}}", value=quoted(value)) from None


def _questions(ask: Asked, options: RunOptions) -> Questions:
    texts = options.texts
    each, settings = questions_of(ask)
    return Questions(
        _with_adapter(each, [name for name, _ in options.model.adapters]),
        texts.settings | settings,
        texts.captions_per_image,
        texts.prefix,
        texts.suffix,
        options.output.extension,
    )


def _with_adapter(questions: tuple[Question, ...], given: Sequence[str]) -> tuple[Question, ...]:
    """With the one that is given, where none of them names any."""
    if not given or any(question.adapter for question in questions):
        return questions
    if len(given) > 1:
        raise OptionError("{adapters}: there is {names}, and nothing says which of them answers", names=listed(given))
    return tuple(replace(question, adapter=given[0]) for question in questions)


def questions_of(ask: Asked) -> tuple[tuple[Question, ...], dict[str, Any]]:
    """What is asked, and the settings that the asks bring along.

    Raises:
      BatchError: something that cannot be asked of every image of a run.
    """
    if isinstance(ask, str):
        return parse_questions(ask, {"caption": Question("caption")}), {}
    asks: tuple[Any, ...] = tuple(ask) if isinstance(ask, Iterable) and not isinstance(ask, bytes) else (ask,)
    if not asks:
        raise BatchError("nothing is asked")
    for each in asks:
        if not isinstance(each, (Ask, Question)):
            raise BatchError(f"what is asked must be an Ask, a list of them or a text, not {quoted(each)}")
    settings = [_settings_of(each) for each in asks]
    if any(other != settings[0] for other in settings):
        raise BatchError("all that is asked in a run is generated with the same settings")
    questions = (
        each if isinstance(each, Question) else replace(_question(each), adapter=each.adapter) for each in asks
    )
    return tuple(questions), settings[0]


def _settings_of(ask: Ask | Question) -> dict[str, Any]:
    given = ask.settings if isinstance(ask, Ask) and ask.settings is not None else {}
    if isinstance(given, Mapping):
        for name in given:
            if name not in _SETTINGS:
                raise BatchError(f"the setting {quoted(name)} is none of a run's; there are {', '.join(_SETTINGS)}")
    try:
        parsed = Settings.parse(given, Settings())
    except (TypeError, ValueError) as error:
        raise BatchError(str(error)) from None
    # As plain numbers, for the header of the journal.
    return {name: getattr(parsed, name) for name, value in given.items() if value is not None}


def _question(ask: Ask) -> Question:
    if ask.skill not in SKILLS:
        raise BatchError(f"{quoted(ask.skill)} is none of {', '.join(SKILLS)}")
    skill = SKILLS[ask.skill]
    kinds = {each.name: each.kind for each in skill.arguments if each.kind != "places"}
    for name, value in ask.arguments.items():
        if name not in kinds:
            raise BatchError(f"{ask.skill} takes no {quoted(name)} in a run; it takes {', '.join(kinds)}")
        if not _fits(value, kinds[name]) and value is not None:
            raise BatchError(f"{ask.skill}: {name} cannot be {quoted(value)}")
    if ask.deadline is not None or ask.priority:
        raise BatchError("deadlines and priorities are for single requests, not for a run")
    given: Mapping[str, Any] = ask.arguments
    if ask.skill == "caption":
        asked = {name: value for name, value in given.items() if value is not None}
        if "length" in asked:
            asked["length"] = str(asked["length"])
        return Question("caption", **asked)
    text = given.get(skill.asked, "")
    if skill.asked and not text:
        raise BatchError(f"{ask.skill} needs {skill.asked}=")
    return Question(ask.skill, text, reasoning=given.get("reasoning"))


def _fits(value: Any, kind: str) -> bool:
    """Whether a run can ask with a value for an argument of a kind."""
    if kind == "texts":
        return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
    kinds: Mapping[str, Any] = {"flag": bool, "length": str | int}
    return isinstance(value, kinds.get(kind, str)) and (kind == "flag" or not isinstance(value, bool))


def _places(out: str | None, options: RunOptions) -> Places:
    output, shard = options.output, options.inputs.shard
    if out == "-":
        raise OptionError("{out} - is standard output, which a run does not write to; an observer may")
    form = None if out is None else output.form or form_of(out)
    journal = None if output.journal is None else Path(output.journal)
    if journal is None and out is not None:
        journal = journal_of(out, form or "", shard)
    if journal is None:
        for name, given in (
            ("dedupe", options.inputs.dedupe != "none"),
            ("report", output.report is not None),
            ("retry_failed", output.retry_failed),
            ("restart", output.restart),
        ):
            if given:
                raise OptionError(f"{{{name}}} needs a journal: give {{out}} or {{journal}}")
    report, trace = (None if path is None else Path(path) for path in (output.report, options.account.trace))
    return Places(journal, out, form, report, trace, shard)


def _source_options(options: RunOptions, questions: Questions, existing: ExistingTexts) -> SourceOptions:
    inputs = options.inputs
    return SourceOptions(
        inputs.image_column,
        inputs.key_column,
        (*CAPTION_COLUMNS, *existing.columns, *questions.possible_columns),
        questions.columns,
        inputs.root,
        inputs.exclude,
        RetryPolicy(inputs.timeout, inputs.retries),
    )
