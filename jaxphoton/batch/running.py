"""A whole run, from its inputs to its outputs: `jaxphoton.batch.run`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxphoton.batch.dedupe import Dedupe
from jaxphoton.batch.errors import BatchError, OptionError, SourceError
from jaxphoton.batch.exports.options import ExportReport
from jaxphoton.batch.journal import Header, Journal, Record
from jaxphoton.batch.model import RunModel, recorded, run_model
from jaxphoton.batch.observer import Beginning, RunObserver
from jaxphoton.batch.opening import open_journal, resized
from jaxphoton.batch.options import WHOLE, RunOptions
from jaxphoton.batch.outputs import write_outputs
from jaxphoton.batch.retries import retrying
from jaxphoton.batch.runner import Runner, stoppable
from jaxphoton.batch.sources import Item
from jaxphoton.batch.summary import RunResult, Tally
from jaxphoton.batch.work import Asked, Inputs, Work
from jaxphoton.messages import quoted

if TYPE_CHECKING:  # which imports jax
    from jaxphoton.api import Model
    from jaxphoton.models.protocol import Family

_DEFAULT = RunOptions()


def run(
    inputs: Inputs,
    out: str | os.PathLike[str] | None = None,
    ask: Asked = "caption",
    *,
    model: str | os.PathLike[str] | Model = "shapes",
    options: RunOptions = _DEFAULT,
    observer: RunObserver | None = None,
    stop: Callable[[], bool] | None = None,
    signals: bool = False,
    **more: Any,
) -> RunResult:
    """Asks about every image of `inputs`, and goes on where an earlier call ended.

        result = batch.run("photos/", "captions.jsonl", limit=1000, existing="append")

    Results go to a journal beside the output as they come, and from there to the output at the end; see docs/batch.md.
    An image that fails is a line in the list of failures. Blocks until all is done; prints nothing.

    Args:
      inputs: an image, a folder, a glob, a list, tars, an address, or several of these; see `open_source`.
      out: a file or folder, by its suffix as in `export`; None leaves the results to the journal or the observer.
      ask: an `Ask` or a list of them, whose texts may have variables (`{name}`), or a text such as
        "caption:short,detect:person".
      model: a name as for `Model.from_pretrained`, or an open `Model`, which stays open.
      options: how; `more` changes single ones of them by name.
      observer: hears of every image.
      stop: looked at before each image: whether to finish what is under way, and begin no more.
      signals: SIGINT and SIGTERM stop the run too, and the process when they come again; in the main thread only.

    Raises:
      BatchError: what is given cannot be run, or cannot go on; the message names it. What is done is in the journal.
      TypeError: there is no such option.
      EngineError: the engine cannot start, or has failed.
    """
    _check_kinds(options, observer, stop)
    work = Work.of(inputs, out, ask, options.changed(**more))
    if work.places.journal is None and observer is None:
        raise OptionError("nothing would keep the results: give {out}, {journal} or an {observer}")
    watching = observer or RunObserver()
    for line in work.notes():
        watching.note(line)
    work.check()
    if isinstance(model, (str, os.PathLike)):
        work = dataclasses.replace(work, options=resized(work.options, work.places.journal))
    # Before the programs are compiled, and before a journal keeps the digest of a model that cannot be loaded, or all
    # files of another folder are read for it.
    chosen = run_model(model, work.options)
    family = chosen.find()
    work.questions.check(family.skills())
    with _journal(work, chosen, watching) as journal:
        return _Run(work, chosen, family, journal, watching, stop or (lambda: False), signals).result()


def _check_kinds(options: Any, observer: Any, stop: Any) -> None:
    for name, value, good, kind in (
        ("options", options, isinstance(options, RunOptions), "a RunOptions"),
        ("observer", observer, observer is None or isinstance(observer, RunObserver), "a RunObserver"),
        ("stop", stop, stop is None or callable(stop), "a function"),
    ):
        if not good:
            raise OptionError(f"{{{name}}} must be {kind}, not {{value}}", value=quoted(value))


def _journal(work: Work, model: RunModel, observer: RunObserver) -> AbstractContextManager[Journal | None]:
    path = work.places.journal
    if path is None:
        return nullcontext()
    return open_journal(path, Header(work.settings(model), model.digest()), work.options.output, observer)


class _Run:
    """One call of `run`: the sink of its records."""

    def __init__(
        self,
        work: Work,
        model: RunModel,
        family: Family,
        journal: Journal | None,
        observer: RunObserver,
        stop: Callable[[], bool],
        signals: bool,
    ):
        self._work, self._model, self._journal, self._observer = work, model, journal, observer
        self._family, self._stop, self._signals = family, stop, signals
        self._tally, self._figures, self._stopped = Tally(), {}, False

    def result(self) -> RunResult:
        """Runs; the same as `run`."""
        work, journal, observer = self._work, self._journal, self._observer
        one_file = work.places.one_file
        there = one_file is not None and os.path.exists(one_file)
        with ExitStack() as model:  # closed last: a device that hangs at its end keeps no output back
            self._answer_all(model)
            for line in work.selection.part(work.source)[0].skipped.lines():
                observer.note(line)
            for line in self._tally.lines(self._figures) if self._figures else ():
                observer.note(line)
            if journal is None:
                return self._ended(ExportReport(), self._tally.images, self._tally.failed)
            journal.flush()
            if work.selection.shard != WHOLE and not there and one_file is not None and os.path.exists(one_file):
                raise BatchError(f"{one_file} was made by another run meanwhile; the results are in {journal.path}")
            report = write_outputs(work, journal, self._figures, observer)
            return self._ended(report, journal.counts.total(), journal.counts["failed"])

    def __call__(self, number: int, record: Record) -> int | None:
        offset = None if self._journal is None else self._journal.write(record)
        self._tally.add(record)
        self._observer.image(number, record)
        return offset

    def _answer_all(self, model: ExitStack) -> None:
        """Asks about all images that are left; `model` closes what was opened for them."""
        work, observer = self._work, self._observer
        done = self._journal.counts.total() if self._journal is not None else 0
        observer.begin(
            Beginning(
                self._tally,
                lambda: work.selection.count(work.source),
                done,
                work.settings(self._model),
                work.places.journal,
            )
        )
        try:
            items = self._items()
            first = next(items, None)
            if first is None and not done and not work.existing.kept and work.selection.shard == WHOLE:
                raise SourceError("; ".join(["no image found", *work.source.skipped.lines()]))
            observer.ask(first is not None)
            if first is not None:
                self._answer(chain([first], items), model)
        finally:
            observer.end()

    def _items(self) -> Iterator[Item]:
        """What has to be asked about: not what is in the journal, and nothing whose text is kept."""
        work, journal, observer = self._work, self._journal, self._observer

        def done(key: str) -> bool:
            if journal is not None and key in journal:
                return True
            if found := work.existing.has_key(key):
                observer.keep()
            return found

        for item in work.selection.items(work.source, done):
            if work.existing.has(item):
                observer.keep()
            else:
                yield item

    def _answer(self, items: Iterator[Item], model: ExitStack) -> None:
        """Loads the model, and asks it."""
        work, observer = self._work, self._observer
        if work.options.account.jax_profile:
            from jaxphoton.measure.profile import keep_graphs

            keep_graphs()  # before the first use of a device
        journal, price = self._journal, work.options.account.gpu_hour_price
        dedupe = Dedupe(journal.path) if work.options.inputs.dedupe != "none" and journal is not None else None
        answerer, gpus = model.enter_context(self._model.answering(observer.note))
        with (
            stoppable(observer.stop, self._signals) as signal,
            recorded(answerer, self._model.name, work.options.account),
        ):
            self._tally.start(answerer.compiling)
            observer.answer(answerer.compiling)
            try:
                asked = retrying(answerer, work.options.texts.retry_loops, self._family.defaults)
                Runner(asked, work.questions, self, lambda: signal.asked or self._stop(), dedupe).run(items)
            except BaseException:
                model.close()  # ends what is under way, before the record of it does
                raise
            self._figures = self._tally.summary(answerer.stages, None if price is None else gpus * price)
            self._stopped = signal.asked or self._stop()

    def _ended(self, report: ExportReport, done: int, failed: int) -> RunResult:
        places = self._work.places
        return RunResult(
            self._tally.images,
            done,
            failed,
            report.lost,
            self._work.existing.kept + report.kept,
            self._stopped,
            self._figures,
            None if places.out is None else Path(places.out),
            places.journal,
            places.failures if places.failures is not None and places.failures.exists() else None,
            places.report,
        )
