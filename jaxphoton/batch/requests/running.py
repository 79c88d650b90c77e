"""A whole run over a file of requests: `run_requests`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxphoton.batch.checks import path
from jaxphoton.batch.errors import OptionError
from jaxphoton.batch.journal import Header, Journal, Record
from jaxphoton.batch.model import RunModel, name_for_clients, run_model
from jaxphoton.batch.observer import Beginning, RunObserver
from jaxphoton.batch.opening import open_journal, resized
from jaxphoton.batch.options import RunOptions
from jaxphoton.batch.places import Places, journal_of
from jaxphoton.batch.requests.lines import RequestFile, RequestLine
from jaxphoton.batch.requests.outputs import write_answers
from jaxphoton.batch.requests.pictures import RequestPictures
from jaxphoton.batch.requests.runner import DEFAULT_RULES, RequestRules, RequestRunner
from jaxphoton.batch.runner import stoppable
from jaxphoton.batch.summary import RunResult, Tally
from jaxphoton.bodies.models import adapter_behind
from jaxphoton.requests.adapters import AdapterPlaces

if TYPE_CHECKING:  # which imports jax
    from jaxphoton.api import Model

_DEFAULT = RunOptions()
_OUTPUT = ("journal", "allow_changes", "restart", "retry_failed")
File = str | os.PathLike[str]


def run_requests(
    requests: File,
    out: File,
    errors: File | None = None,
    *,
    model: File | Model | RunModel = "shapes",
    options: RunOptions = _DEFAULT,
    observer: RunObserver | None = None,
    stop: Callable[[], bool] | None = None,
    leave: Callable[[], bool] | None = None,
    signals: bool = False,
    rules: RequestRules = DEFAULT_RULES,
    **more: Any,
) -> RunResult:
    """Answers the requests of a file, and goes on where an earlier call ended.

        result = batch.run_requests("asks.jsonl", "answers.jsonl", retry_failed=True)

    Answers go to the journal `<out>.journal` as they come, and from there to the outputs at the end, in the order of
    the lines; see docs/batch.md. A line that cannot be answered has its error in its place. Deadlines, priorities and
    `stream` of a body are for single requests, and passed over. Blocks until all is done; prints nothing.

    Args:
      requests: JSON lines in OpenAI's batch form. Pictures are in them, or paths, relative to the folder of the file.
      out: where the answers go, JSON lines.
      errors: takes the lines that failed, instead of `out`.
      model, observer, stop, signals: as in `batch.run`.
      options: those about the model, its pictures and the journal, by the names of `RunOptions`; also as `more`.
      leave: looked at after each answer: whether to give up what is under way, too.
      rules: what requests may ask for, and how much room they take.

    Raises:
      BatchError: what is given cannot be run, or cannot go on; the message names it. What is done is in the journal.
      TypeError: there is no such option.
      EngineError: the engine cannot start, or has failed.
    """
    options = options.changed(**more)
    _check(options)
    file = RequestFile(path(requests), rules.url)
    places = _places(path(out), None if errors is None else path(errors), options)
    assert places.journal is not None
    places.check([str(file.path)])
    if isinstance(model, (str, os.PathLike)):
        options = resized(options, places.journal)
    chosen = run_model(model, options, restricted=True)
    chosen.find()
    watching = observer or RunObserver()
    header = Header(_settings(file, chosen), chosen.digest())
    with open_journal(places.journal, header, options.output, watching) as journal:
        run = _Run(file, chosen, journal, rules, watching)
        with ExitStack() as opened:
            run.answer(opened, stop or (lambda: False), leave or (lambda: False), signals)
            journal.flush()
            with journal.reader() as reader:
                failures = None if errors is None else places.failures
                write_answers(reader, file.survey.last, places, failures, file.path)
        return run.result(places, errors is not None)


def _check(options: RunOptions) -> None:
    there = (options.inputs, options.texts, options.account)
    for name in [name for part in there for name in part.given()] + [
        name for name in options.output.given() if name not in _OUTPUT
    ]:
        raise OptionError(f"{{{name}}} is for runs over images, not for requests")


def _places(out: str, errors: str | None, options: RunOptions) -> Places:
    if "-" in (out, errors):
        raise OptionError("- is standard output, and answers go to files")
    journal = options.output.journal
    return Places(
        journal_of(out, "jsonl") if journal is None else Path(journal),
        out,
        "jsonl",
        failures=None if errors is None else Path(errors),
    )


def _settings(file: RequestFile, model: RunModel) -> dict[str, Any]:
    # Only where there are some: journals from before go on.
    adapters = {"adapters": model.adapter_digests(model.adapters)} if model.adapters else {}
    return {"requests": {"lines": file.survey.lines, "sha256": file.survey.sha256}, **adapters, **model.settings}


class _Run:
    """One call of `run_requests`."""

    def __init__(
        self, file: RequestFile, model: RunModel, journal: Journal, rules: RequestRules, observer: RunObserver
    ):
        self._file, self._model, self._journal, self._rules, self._observer = file, model, journal, rules, observer
        self._tally, self._figures, self._stopped = Tally("request"), {}, False

    def answer(self, opened: ExitStack, stop: Callable[[], bool], leave: Callable[[], bool], signals: bool) -> None:
        """Asks what is left; `opened` closes what was opened for it."""
        file, observer, counts = self._file, self._observer, self._journal.counts
        header = _settings(file, self._model)
        observer.begin(
            Beginning(
                self._tally, lambda: file.survey.lines, counts.total(), header, self._journal.path, counts["failed"]
            )
        )
        try:
            lines = self._remaining()
            first = next(lines, None)
            observer.ask(first is not None)
            if first is not None:
                self._ask(chain([first], lines), opened, stop, leave, signals)
        finally:
            observer.end()

    def result(self, places: Places, errors: bool) -> RunResult:
        counts, failures = self._journal.counts, places.failures
        return RunResult(
            self._tally.images,
            counts.total(),
            counts["failed"],
            stopped=self._stopped,
            summary=self._figures,
            out=places.one_file,
            journal=places.journal,
            failures=failures if errors else None,
        )

    def _remaining(self) -> Iterator[RequestLine]:
        return (line for line in self._file.lines() if str(line.number) not in self._journal)

    def _ask(
        self,
        lines: Iterator[RequestLine],
        opened: ExitStack,
        stop: Callable[[], bool],
        leave: Callable[[], bool],
        signals: bool,
    ) -> None:
        observer, rules = self._observer, self._rules
        if rules.name is None:
            rules = replace(rules, name=name_for_clients(self._model.name))
        if rules.resolve is None:
            rules = replace(rules, resolve=partial(adapter_behind, AdapterPlaces(self._model.adapters)))
        root = os.path.dirname(os.path.abspath(self._file.path)) if rules.paths else None
        answerer, _ = opened.enter_context(self._model.answering(observer.note))
        with stoppable(observer.stop, signals) as signal:
            self._tally.start(answerer.compiling)
            observer.answer(answerer.compiling)
            pictures = RequestPictures(root, rules.fetch)
            try:
                RequestRunner(answerer, pictures, self._take, rules, lambda: signal.asked or stop(), leave).run(lines)
            except BaseException:
                opened.close()  # ends what is under way
                raise
            self._figures = self._tally.summary(answerer.stages)
            self._stopped = signal.asked or stop() or leave()
        for line in self._tally.lines(self._figures):
            observer.note(line)

    def _take(self, record: Record) -> None:
        self._journal.write(record)
        self._tally.add(record)
        self._observer.image(int(record.key) - 1, record)
