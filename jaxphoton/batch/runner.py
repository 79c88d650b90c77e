"""The loop of a run, from items through something that answers images to records; and what ends it early."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Protocol

from jaxphoton.batch.dedupe import Dedupe
from jaxphoton.batch.errors import BatchError
from jaxphoton.batch.journal.record import Record
from jaxphoton.batch.quality import WARNINGS, flags
from jaxphoton.batch.questions import Questions
from jaxphoton.batch.sources.item import Item
from jaxphoton.batch.sources.selection import read_ahead
from jaxphoton.batch.variables import original_caption
from jaxphoton.image.errors import ImageError
from jaxphoton.requests.answer import Answer
from jaxphoton.requests.ask import Ask, Job

INTERRUPTED = 130  # the exit code


class Answerer(Protocol):
    """What answers images: a model in this process, or several elsewhere."""

    def answer(self, jobs: Iterable[Job]) -> Iterator[Answer]:
        """Answers in any order. `jobs` is read in another thread, lazily: only so many ahead that nobody waits."""
        ...


class Sink(Protocol):
    """Takes records as images finish, from one thread at a time."""

    def __call__(self, number: int, record: Record) -> int | None:
        """
        Args:
          number: of the image: 0, 1, ... in the order of the items.
        Returns:
          where the record is in the journal, if in one.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Entry:
    """An item that was read, or could not be."""

    number: int
    item: Item
    image: str | bytes = b""
    asks: tuple[Ask, ...] = ()
    sha256: str = ""
    error: ImageError | None = None


class Runner:
    """Asks about every item and hands a record of each to `sink`.

    Memory does not grow with the number of items: the answerer reads them as it needs them.

    Args:
      stopped: looked at before each item: what is under way then is finished, and nothing more begun.
      dedupe: answers a file that comes again from its first record.
    """

    def __init__(
        self,
        answerer: Answerer,
        questions: Questions,
        sink: Sink,
        stopped: Callable[[], bool] = lambda: False,
        dedupe: Dedupe[_Entry] | None = None,
    ):
        self._answerer, self._questions, self._sink = answerer, questions, sink
        self._stopped, self._dedupe = stopped, dedupe
        self._lock = threading.Lock()
        self._under_way: dict[Hashable, _Entry] = {}

    def run(self, items: Iterable[Item]) -> None:
        """Until all are done, or stopped.

        Raises:
          BatchError: a fault that every image would have.
          SourceError, JournalError: as the items and the sink do.
        """
        try:
            for answer in self._answerer.answer(self._jobs(items)):
                self._finish(self._under_way.pop(answer.key), answer)
        finally:
            if self._dedupe is not None:
                self._dedupe.close()

    def _jobs(self, items: Iterable[Item]) -> Iterator[Job]:
        """Jobs of those items that have to be asked about; the others' records are written here."""
        going_on = takewhile(lambda _: not self._stopped(), items)
        slow = self._dedupe is not None  # whole files are read then
        for number, entry in read_ahead(going_on, self._read, lambda item: slow or not item.local):
            if self._stopped():
                return
            entry = replace(entry, number=number)
            if entry.error is not None:
                self._write(entry, _failure(entry, entry.error))
            elif self._dedupe is None or self._claims(self._dedupe, entry):
                self._under_way[entry.number] = entry
                yield Job(entry.number, entry.image, entry.asks, entry.item.key)

    def _read(self, item: Item) -> _Entry:
        try:
            asks, image, sha256 = self._questions.asks(item), item.image(), ""
            if self._dedupe is not None:
                data = item.read() if isinstance(image, str) else image
                sha256 = hashlib.sha256(data).hexdigest()
        except ImageError as error:
            return _Entry(0, item, error=error)
        return _Entry(0, item, image, asks, sha256)

    def _claims(self, dedupe: Dedupe[_Entry], entry: _Entry) -> bool:
        """Whether an image has to be asked about; one like it may have been."""
        found = dedupe.claim(entry.sha256, replace(entry, image=b""))
        if isinstance(found, Record):
            self._write(entry, _copy(found, entry))
        return found is True

    def _finish(self, entry: _Entry, answer: Answer) -> None:
        record = self._success(entry, answer) if answer.error is None else self._failed(entry, answer.error)
        offset = self._write(entry, record)
        if self._dedupe is not None:
            for follower in self._dedupe.finish(entry.sha256, offset if record.status == "ok" else None):
                self._write(follower, _copy(record, follower))

    def _failed(self, entry: _Entry, error: Exception) -> Record:
        if isinstance(error, ImageError):
            return _failure(entry, error)
        if isinstance(error, OSError):
            return _failure(entry, ImageError(entry.item.key, "unreadable", error.strerror or str(error)))
        if isinstance(error, ValueError) and self._questions.varies:  # what this image was asked, and no other
            return _failure(entry, ImageError(entry.item.key, "bad-entry", str(error)))  # type: ignore[arg-type]
        if isinstance(error, (ValueError, RuntimeError)):
            raise BatchError(str(error)) from error
        raise error

    def _success(self, entry: _Entry, answer: Answer) -> Record:
        item, (height, width) = entry.item, answer.size
        results = self._questions.results(item, entry.asks, answer.results)
        odd = tuple(WARNINGS[flag] for flag in flags(results))
        return Record(
            item.key,
            "ok",
            path=item.path,
            width=width,
            height=height,
            results=results,
            ms=_milliseconds(answer.results),
            warnings=(*item.notes, *answer.notes, *odd),
            org_caption=original_caption(item),
            sha256=entry.sha256,
        )

    def _write(self, entry: _Entry, record: Record) -> int | None:
        with self._lock:  # records of items that cannot be read come from the thread that reads
            return self._sink(entry.number, record)


def _failure(entry: _Entry, error: ImageError) -> Record:
    item = entry.item
    return Record(item.key, "failed", path=item.path, reason=error.reason, fault=error.fault, sha256=entry.sha256)


def _copy(record: Record, entry: _Entry) -> Record:
    """The record of an image whose file is that of another; it has cost nothing."""
    item = entry.item
    results = tuple({name: value for name, value in result.items() if name != "retries"} for result in record.results)
    return replace(record, key=item.key, path=item.path, results=results, ms={}, org_caption=original_caption(item))


def _milliseconds(results: tuple[Any, ...]) -> dict[str, float]:
    """By stage; the results of one image share its preparation."""
    metrics = [result.metrics for result in results if result.metrics is not None]
    if not metrics:
        return {}
    stages = {name: sum(getattr(each, name) for each in metrics) for name in ("queue", "prefill", "decode")}
    return {name: round(1e3 * value, 1) for name, value in ({"prepare": metrics[0].prepare} | stages).items()}


class Stop:
    """Whether a run was asked to end: Ctrl-C once finishes what is under way; twice ends it now.

    Attributes:
      asked: by a first signal.

    Args:
      tell: called at the first signal, in its handler.
    """

    def __init__(self, tell: Callable[[], None]):
        self.asked, self._tell = False, tell

    def handle(self, number: int, _: object) -> None:
        if self.asked:
            # Not an exception: the device may hold the main thread for long. The journal's lines are safe.
            os._exit(INTERRUPTED)
        self.asked = True
        self._tell()


@contextmanager
def stoppable(tell: Callable[[], None], signals: bool = True) -> Iterator[Stop]:
    """Inside, SIGINT and SIGTERM set `asked`, and end the process when they come again; without `signals` nothing."""
    stop = Stop(tell)
    if not signals or threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may handle them
        return
    before = {number: signal.signal(number, stop.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
