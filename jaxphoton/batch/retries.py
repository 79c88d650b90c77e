"""Answers whose text repeats itself, asked again.

A sampled answer is asked again from another seed, a greedy one at a temperature, as it would only come again: that of
the model's family, 0.6 at top-p 0.9 for a family that is greedy itself. All else stays. Try k of an ask from seed s has
the seed `seed_of_try(s, k)`; s is 0 for a greedy ask without a seed, and the drawn one for a sampled one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from jaxphoton.batch.quality import loops
from jaxphoton.batch.runner import Answerer
from jaxphoton.image.errors import ImageError
from jaxphoton.requests.answer import Answer
from jaxphoton.requests.ask import Ask, Job
from jaxphoton.requests.settings import MAX_SEED, Settings

_WARM = Settings(temperature=0.6, top_p=0.9)
_STRIDE = 0x9E3779B1  # odd: the tries of an ask never meet; far from 1: nor do those of consecutive seeds


def seed_of_try(seed: int, number: int) -> int:
    """The seed of try `number` (the first answer is try 0) of an ask from `seed`."""
    return (seed + number * _STRIDE) % (MAX_SEED + 1)


def ask_of_try(ask: Ask, first: Any, number: int, defaults: Settings) -> Ask:
    """An ask as it is asked again.

    Args:
      first: its first result, which knows its seed.
      number: of the try, from 1.
      defaults: of the texts of the model's family.
    """
    given = dict(ask.settings or {})
    temperature = given["temperature"] if given.get("temperature") is not None else defaults.temperature
    seed = given["seed"] if given.get("seed") is not None else first.seed if temperature else 0
    if not temperature:
        warm = defaults if defaults.temperature else _WARM
        given["temperature"] = warm.temperature
        given["top_p"] = warm.top_p if given.get("top_p") is None else given["top_p"]
    return replace(ask, settings=given | {"seed": seed_of_try(seed, number)})


def retrying(answerer: Answerer, retries: int, defaults: Settings) -> Answerer:
    """What answers and asks so often again, see `RetryingAnswerer`; with 0 the answerer itself."""
    return RetryingAnswerer(answerer, retries, defaults) if retries else answerer


class RetryingAnswerer:
    """An `Answerer` around another, which asks again what was answered with a text that repeats itself.

    An answer is the first that does not, else the first of all; its result's `retries` says how often it was asked
    again. Every result of a job is for itself: the others are not asked again, nor are boxes and points. Where the
    picture cannot be read any more, or killed what looked at it, the first answers stay.

    Args:
      retries: of each ask at most.
      defaults: of the texts of the model's family.
    """

    def __init__(self, answerer: Answerer, retries: int, defaults: Settings):
        self._answerer, self._retries, self._defaults = answerer, retries, defaults

    def answer(self, jobs: Iterable[Job]) -> Generator[Answer, None, None]:
        feed = _Feed(jobs)
        try:
            for answer in self._answerer.answer(feed.jobs()):
                under_way = feed.under_way[answer.key]
                whole = under_way.take(answer, self._retries)
                if whole is None:
                    feed.again(under_way.job_of_try(self._defaults))
                else:
                    feed.finish(answer.key)
                    yield whole
        finally:
            feed.leave()


@dataclass(slots=True)
class _UnderWay:
    """A job with the results it has so far.

    Attributes:
      first: the first answer.
      results: the best so far.
      places: of those that repeat themselves.
      tries: that were made beyond the first.
    """

    job: Job
    first: Answer | None = None
    results: list[Any] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    tries: int = 0

    def take(self, answer: Answer, retries: int) -> Answer | None:
        """The whole answer to the job; None where some of it is to be asked again."""
        if self.first is None:
            if answer.error is not None:
                return answer
            self.first, self.results = answer, list(answer.results)
            self.places = [place for place, result in enumerate(self.results) if _loops(result)]
        elif answer.error is None:
            self.tries += 1
            for place, result in zip(self.places, answer.results, strict=True):
                self.results[place].retries = self.tries
                if not _loops(result):
                    self.results[place], result.retries = result, self.tries
            self.places = [place for place in self.places if _loops(self.results[place])]
        elif not isinstance(answer.error, ImageError):
            return answer
        else:
            self.places = []
        if self.places and self.tries < retries:
            return None
        return replace(self.first, results=tuple(self.results))

    def job_of_try(self, defaults: Settings) -> Job:
        """What is asked again."""
        asks = (
            ask_of_try(self.job.asks[place], self.results[place], self.tries + 1, defaults) for place in self.places
        )
        return replace(self.job, asks=tuple(asks))


def _loops(result: Any) -> bool:
    return loops(result, result.finish_reason)


class _Feed:
    """Jobs for an answerer, among which some come again. A thread of its own reads them, one ahead: none that comes
    again waits for a source that is slow.

    Attributes:
      under_way: by key, those that have not been answered for good.
    """

    def __init__(self, jobs: Iterable[Job]):
        self._source = jobs
        self._changed = threading.Condition()
        self._again: deque[Job] = deque()
        self._next: Job | None = None
        self._ended = self._left = False
        self._fault: BaseException | None = None
        self.under_way: dict[Hashable, _UnderWay] = {}

    def jobs(self) -> Iterator[Job]:
        """All jobs, and what comes again; then raises what reading them has raised."""
        threading.Thread(target=self._read, name="jaxphoton-again", daemon=True).start()
        while (job := self._due()) is not None:
            yield job
        if self._fault is not None and not self._left:
            raise self._fault

    def again(self, job: Job) -> None:
        with self._changed:
            self._again.append(job)
            self._changed.notify_all()

    def finish(self, key: Hashable) -> None:
        """A job is answered for good."""
        with self._changed:
            del self.under_way[key]
            self._changed.notify_all()

    def leave(self) -> None:
        """Nobody wants any more of them."""
        with self._changed:
            self._left = True
            self._changed.notify_all()

    def _due(self) -> Job | None:
        """The next job, as soon as there is one; None at the end."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._again or self._next or self._left or (self._ended and not self.under_way)
            )
            if self._left:
                return None
            if self._again:
                return self._again.popleft()
            job, self._next = self._next, None
            if job is not None:
                self.under_way[job.key] = _UnderWay(job)
                self._changed.notify_all()
            return job

    def _read(self) -> None:
        """The thread that reads the source."""
        jobs, fault = self._source, None
        try:
            for job in jobs:
                with self._changed:
                    self._next = job
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._next is None or self._left)
                    if self._left:
                        return
        except BaseException as error:
            fault = error
        finally:
            if isinstance(jobs, Generator):
                jobs.close()
            with self._changed:
                self._ended, self._fault = True, fault
                self._changed.notify_all()
