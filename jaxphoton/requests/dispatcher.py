"""Many images, each asked the same or different things: prepared ahead of the engine, answered as they finish."""

from __future__ import annotations

import threading
import traceback
import weakref
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from jaxphoton.requests.answer import Answer
from jaxphoton.requests.ask import Job


class Request(Protocol):
    """What is handed out for a request; see `Pending`."""

    @property
    def future(self) -> Future[Any]: ...

    def cancel(self) -> None: ...


R = TypeVar("R", bound=Request)


class Backend(Protocol[R]):
    """What a dispatcher takes jobs to."""

    def prepare(self, job: Job) -> tuple[Any, Future[Any]]:
        """Prepares the asks of a job, and starts preparing its picture."""
        ...

    def start(self, job: Job, prepared: Any, picture: Any) -> list[R]:
        """Hands the requests of a job over, given its asks, prepared, and its picture: all, or it raises and none is
        left."""
        ...

    def answer(self, job: Job, picture: Any, requests: list[R]) -> Answer:
        """The answer of a job whose requests have all finished well."""
        ...


_END = object()


@dataclass(slots=True, eq=False)
class _Work:
    """A job under way: its picture is being prepared, or waits, or its requests are in the engine.

    Futures keep their callbacks, and these know the work: `drop` cuts the circle, so that images and crops do not wait
    for a collection of garbage.
    """

    job: Job
    prepared: Any
    picture: Future[Any] | None
    requests: list[Any] = field(default_factory=list)
    unfinished: int = 0

    def drop(self) -> None:
        self.prepared, self.picture, self.requests = None, None, []


class Dispatcher(Generic[R]):
    """Takes jobs to an engine and brings answers back, as fast as both go; for one use.

    A thread of its own reads the jobs, so that a slow source keeps no finished work waiting. Of all jobs at most
    `room` are under way, and at most `most` requests in the engine (or those of a single job): memory and the
    engine's queue do not grow with their number; see `requests.bounds`.
    """

    def __init__(self, jobs: Iterable[Job], backend: Backend[R], room: int, most: int):
        self._jobs, self._backend = jobs, backend
        self._room, self._most = threading.Semaphore(room), most
        # What has happened: a picture is there, a request has finished, or (None) the jobs have ended.
        self._events: SimpleQueue[tuple[_Work | None, Any]] = SimpleQueue()
        # One that may be taken twice: a forgotten batch leaves from wherever garbage is collected.
        self._lock = threading.RLock()
        self._under_way: set[_Work] = set()
        self._ready: deque[_Work] = deque()
        self._in_engine = 0
        self._left = False
        self._stopped: Exception | None = None

    def answers(self) -> Generator[Answer, None, None]:
        """Answers in the order in which they finish; then raises what reading the jobs has raised.

        Leaving early gives up what is under way.
        """
        threading.Thread(target=self._read, name="jaxphoton-jobs", daemon=True).start()
        ended, fault = False, None
        try:
            while not ended or self._under_way:
                work, event = self._events.get()
                if self._stopped is not None:
                    raise self._stopped
                if work is None:
                    ended, fault = True, event
                elif event is work.picture:
                    self._ready.append(work)
                else:
                    self._in_engine -= 1
                    work.unfinished -= 1
                    if not work.unfinished:
                        yield self._finish(work)
                while self._ready and (
                    not self._in_engine or self._in_engine + len(self._ready[0].job.asks) <= self._most
                ):
                    work = self._ready.popleft()
                    if (error := self._start(work)) is not None:
                        traceback.clear_frames(error.__traceback__)
                        yield self._finish(work, error)
            if fault is not None:
                raise fault
        finally:
            self._leave()

    def stop(self, fault: Exception) -> None:
        """Ends `answers` with this exception, also where it waits for jobs; from any thread."""
        self._stopped = fault
        self._put(None, fault)

    def _read(self) -> None:
        """The thread that reads the jobs."""
        jobs, fault = self._jobs, None
        try:
            jobs = iter(jobs)
            while self._room.acquire() and not self._left and (job := next(jobs, _END)) is not _END:
                if not isinstance(job, Job):
                    raise TypeError(f"expected a Job, not {type(job).__name__}")
                prepared, picture = self._backend.prepare(job)
                work = _Work(job, prepared, picture)
                with self._lock:
                    if self._left:
                        picture.cancel()
                        return
                    self._under_way.add(work)
                picture.add_done_callback(partial(_happened, weakref.ref(self), work))
        except BaseException as error:
            fault = error
        finally:
            if isinstance(jobs, Generator):
                jobs.close()
            self._put(None, fault)

    def _put(self, work: _Work | None, event: Any) -> None:
        with self._lock:
            if not self._left:  # afterwards nobody looks
                self._events.put((work, event))

    def _start(self, work: _Work) -> Exception | None:
        """Asks about a picture; the error if that is impossible."""
        assert work.picture is not None
        if (error := _error_of(work.picture)) is not None:
            return error
        try:
            work.requests = self._backend.start(work.job, work.prepared, work.picture.result())
        except Exception as fault:  # this job's own; the others go on
            return fault
        work.unfinished = len(work.requests)
        self._in_engine += work.unfinished
        for request in work.requests:
            request.future.add_done_callback(partial(_happened, weakref.ref(self), work))
        return None

    def _finish(self, work: _Work, error: Exception | None = None) -> Answer:
        """The end of a job, which lets the next one in."""
        with self._lock:
            self._under_way.discard(work)
        self._room.release()
        picture, requests = work.picture, work.requests
        work.drop()
        for request in requests:
            error = _error_of(request.future) if error is None else error
        if error is not None:
            return Answer(work.job.key, error=error)
        assert picture is not None
        return self._backend.answer(work.job, picture.result(), requests)

    def _leave(self) -> None:
        with self._lock:
            self._left = True
            under_way, self._under_way = self._under_way, set()
            self._ready.clear()
            while not self._events.empty():
                self._events.get()
        self._room.release()
        for work in under_way:
            if work.picture is not None:
                work.picture.cancel()
            for request in work.requests:
                request.cancel()
            work.drop()


def _happened(dispatcher: weakref.ref[Dispatcher], work: _Work, future: Future[Any]) -> None:
    # Not a method: an error that somebody keeps may know its future, and would keep the dispatcher, and so the model.
    if (found := dispatcher()) is not None:
        found._put(work, future)


def _error_of(future: Future[Any]) -> Exception | None:
    """The error of a future that is done, without raising it: whoever keeps the error keeps the frames it went through,
    and what these had."""
    try:
        error = future.exception()
    except CancelledError as cancelled:
        return cancelled
    return error if isinstance(error, Exception) else None
