"""The loop of a run over requests: from lines through something that answers to records."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Protocol

from jaxphoton.batch.errors import BatchError
from jaxphoton.batch.journal.record import Record
from jaxphoton.batch.requests import records
from jaxphoton.batch.requests.lines import RequestLine
from jaxphoton.batch.requests.pictures import Fetch, Image, RequestPictures
from jaxphoton.batch.runner import Answerer
from jaxphoton.batch.sources.selection import read_ahead
from jaxphoton.bodies.faults import BodyError, fault_of
from jaxphoton.bodies.skills import Body
from jaxphoton.image.errors import ImageError
from jaxphoton.messages import first_line
from jaxphoton.requests.answer import Answer
from jaxphoton.requests.ask import Job
from jaxphoton.requests.errors import EngineError, NotFinite, UnknownAdapter, UnusableAdapter

_log = logging.getLogger(__name__)

# What is wrong with a line when it is read, or told by the model.
_OWN = (BodyError, ImageError, ValueError, TypeError, NotImplementedError, OSError)
_TOLD = (BodyError, ImageError, UnknownAdapter, UnusableAdapter, NotFinite)  # of these, what `fault_of` says


class RequestSink(Protocol):
    """Takes records as lines finish, from one thread at a time."""

    def __call__(self, record: Record, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line on its way: read, or with what is wrong."""

    line: RequestLine
    body: Body | None = None
    image: Image = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class RequestRules:
    """How requests are treated.

    Attributes:
      url: what all have to ask; None for anything there is.
      paths: whether pictures may be files of this machine.
      fetch: the bytes at an http address, given the part of the body that has it, or raises BodyError; None where none
        may be fetched.
      resolve: a body as it is to be answered, or raises BodyError; None to pass the name of the model over, but for an
        adapter behind it.
      priority: of all asks; those in the bodies, and their deadlines, are for single requests.
      most: lines under way at once; None for as many as the model takes.
      name: what answers call the model; None for the name that it was loaded by, of a folder its own.
    """

    url: str | None = None
    paths: bool = True
    fetch: Fetch | None = None
    resolve: Callable[[Body], Body] | None = None
    priority: int = 0
    most: int | None = None
    name: str | None = None


DEFAULT_RULES = RequestRules()


class RequestRunner:
    """Asks what every line asks, and hands a record of each to `sink`. Memory does not grow with their number.

    Args:
      stopped: looked at before each line: what is under way then is finished, and nothing more begun.
      left: looked at after each answer: whether to give up what is under way.
    """

    def __init__(
        self,
        answerer: Answerer,
        pictures: RequestPictures,
        sink: RequestSink,
        rules: RequestRules = DEFAULT_RULES,
        stopped: Callable[[], bool] = lambda: False,
        left: Callable[[], bool] = lambda: False,
    ):
        self._answerer, self._pictures, self._sink = answerer, pictures, sink
        self._rules, self._stopped, self._left = rules, stopped, left
        self._room = None if rules.most is None else threading.Semaphore(rules.most)
        self._lock = threading.Lock()
        self._under_way: dict[int, _Entry] = {}

    def run(self, lines: Iterable[RequestLine]) -> None:
        """Until all are done, or stopped, or left.

        Raises:
          BatchError: a fault that every line would have.
          EngineError: the engine has failed, or the model was closed.
        """
        with closing(self._answerer.answer(self._jobs(lines))) as answers:  # type: ignore[type-var]
            for answer in answers:
                self._finish(self._under_way.pop(answer.key), answer)
                if self._room is not None:
                    self._room.release()
                if self._left():
                    break
        if self._room is not None:
            self._room.release()  # the thread that reads the lines may wait for it

    def _jobs(self, lines: Iterable[RequestLine]) -> Iterator[Job]:
        """Jobs of the lines that can be asked; the records of others are written here."""
        going_on = takewhile(lambda _: not self._ending(), lines)
        for _, entry in read_ahead(map(self._parsed, going_on), self._with_image, self._is_slow):
            if self._ending():
                return
            if entry.error is not None:
                self._write(self._failure(entry, entry.error))
                continue
            if self._room is not None:
                self._room.acquire()
            assert entry.body is not None
            # Without what is large: the picture, which the job has, and the text that it was made of.
            self._under_way[entry.line.number] = replace(entry, image=None, line=replace(entry.line, body=b""))
            ask = replace(entry.body.ask, deadline=None, priority=self._rules.priority)
            yield Job(entry.line.number, entry.image, (ask,), entry.line.custom_id)

    def _ending(self) -> bool:
        return self._stopped() or self._left()

    def _parsed(self, line: RequestLine) -> _Entry:
        if line.fault is not None or line.endpoint is None:
            return _Entry(line, error=line.fault)
        try:
            body = line.endpoint.parsed(line.body, self._pictures.read)
            return _Entry(line, body if self._rules.resolve is None else self._rules.resolve(body))
        except _OWN as error:
            return _Entry(line, error=error)

    def _is_slow(self, entry: _Entry) -> bool:
        return entry.body is not None and self._pictures.is_slow(entry.body.picture)

    def _with_image(self, entry: _Entry) -> _Entry:
        if entry.body is None:
            return entry
        try:
            return replace(
                entry, image=self._pictures.image(entry.body.picture), body=replace(entry.body, picture=None)
            )
        except _OWN as error:
            return replace(entry, error=error)

    def _finish(self, entry: _Entry, answer: Answer) -> None:
        if answer.error is not None:
            self._write(self._failure(entry, answer.error))
            return
        assert entry.body is not None and entry.line.endpoint is not None
        request = records.request_id()
        adapter, name = entry.body.ask.adapter, self._rules.name or ""
        name = name if adapter is None else f"{name}/{adapter}"
        body = entry.line.endpoint.answer(entry.body, answer.results[0], request, name)
        self._write(records.answered(entry.line, request, body, answer.results))

    def _failure(self, entry: _Entry, error: Exception) -> Record:
        """The record of a line; what no other line would come through is raised."""
        if isinstance(error, (BatchError, EngineError)):
            raise error
        if isinstance(error, OSError):
            error = ImageError(entry.line.custom_id or "", "unreadable", error.strerror or str(error))
        elif isinstance(error, ImportError):  # a package that answers of this kind need
            error = BodyError(str(error), code="not_installed", status=501)
        elif isinstance(error, _OWN) and not isinstance(error, _TOLD):
            error = BodyError(str(error))  # the model does not take what is asked
        fault = fault_of(error)
        if fault.status == 500:
            _log.error("line %d: %s", entry.line.number, first_line(error), exc_info=_log.isEnabledFor(logging.DEBUG))
        return records.failed(entry.line, records.request_id(), fault)

    def _write(self, record: Record) -> None:
        with self._lock:  # records of lines that cannot be asked come from the thread that reads
            self._sink(record)
