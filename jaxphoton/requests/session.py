"""The one way from asks to results for a model in this process: prepare, submit, read back."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Generator, Iterable, Mapping
from collections.abc import Sequence as Many
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from jaxphoton.engine.engine import Engine, Submission
from jaxphoton.image.prepare import Prepared
from jaxphoton.models.protocol import Family
from jaxphoton.prompt.tokenizer import Tokenizer
from jaxphoton.requests.adapters import AdapterRegistry
from jaxphoton.requests.answer import Answer, Output, OutputThread, Result
from jaxphoton.requests.ask import Ask, Job, checked
from jaxphoton.requests.bounds import bounds_of
from jaxphoton.requests.dispatcher import Dispatcher
from jaxphoton.requests.errors import ModelClosed
from jaxphoton.requests.images import Images
from jaxphoton.requests.preparing import AskPreparer, PreparedAsk
from jaxphoton.requests.skills import FamilySkills
from jaxphoton.requests.submitting import OnEvent


@dataclass(frozen=True, slots=True, eq=False)
class Submitted:
    """A `Pending`; holds the session, so that a model may be dropped while somebody waits for a result."""

    session: Session
    submission: Submission
    future: Future[Result]

    @property
    def seed(self) -> int:
        """With which it is sampled."""
        return self.submission.sequence.request.settings.seed or 0

    def cancel(self) -> None:
        """See `Pending`."""
        if not self.submission.future.done():
            self.session.engine.cancel(self.submission)


class Session:
    """Prepares images, submits requests, reads results back: a `Submitter`. Closing it, dropping it and the end of the
    interpreter end the engine: streams and batches hold it, so that a model may be dropped while they are read.

    Args:
      image_rules: arguments of `prepare` for every image.
      adapters: that may be asked for.

    Attributes:
      engine: which runs the requests.
      images: which prepares the pictures.
    """

    def __init__(
        self,
        engine: Engine,
        family: Family,
        tokenizer: Tokenizer,
        skills: FamilySkills,
        image_rules: Mapping[str, Any],
        adapters: AdapterRegistry,
    ):
        self.engine = engine
        self.images = Images(family.pictures, image_rules, engine.config)
        self.preparer = AskPreparer(skills, tokenizer, family, adapters)
        self._tokenizer = tokenizer
        self._outputs = OutputThread()
        self._lock = threading.Lock()
        self._dispatchers: weakref.WeakSet[Dispatcher] = weakref.WeakSet()
        self._closed = False
        # A forgotten model must not leave a thread that talks to the device while Python exits.
        weakref.finalize(self, engine.shutdown, wait=False)

    def submit(self, image: Any, ask: Ask, on_event: OnEvent | None = None, wait: bool = False) -> Submitted:
        """See `Submitter`; the image is decoded here and now."""
        prepared = self.preparer.prepare(checked(ask))
        picture = None if image is None else self.images.prepared(image)
        return self.submit_prepared(picture, prepared, ask, on_event, wait)

    def submit_prepared(
        self,
        picture: Prepared | Many[Prepared] | None,
        prepared: PreparedAsk,
        ask: Ask,
        on_event: OnEvent | None = None,
        wait: bool = False,
    ) -> Submitted:
        """The part of `submit` that takes no time, unless there is a constraint to be made, or it has to wait."""
        request = prepared.request(picture, ask)
        output = Output(prepared, request.settings.seed or 0, self._tokenizer, self._outputs, on_event)
        submission = self.engine.submit(request, output.heard, wait)
        output.end_with(submission)
        return Submitted(self, submission, output.future)

    def answers(self, jobs: Iterable[Job]) -> Generator[Answer, None, None]:
        """Answers jobs as they finish, so many at a time as `requests.bounds` says.

        Jobs are read in a thread of their own, and images prepared ahead of the engine in worker processes. Other
        batches and single requests may run beside it: where the engine's queue is full, this waits.

        Raises:
          ModelClosed (also while it is read): the model was closed; what had finished before has been yielded.
        """
        self.images.pool()  # now, while jobs are still to be read
        return self._answers(jobs)

    def close(self) -> None:
        """Ends what is under way with ModelClosed, and stops the engine and the image workers. May be called again."""
        with self._lock:
            self._closed, dispatchers = True, list(self._dispatchers)
        for dispatcher in dispatchers:
            dispatcher.stop(ModelClosed())
        self.engine.shutdown(wait=False)
        self.images.close()

    def _answers(self, jobs: Iterable[Job]) -> Generator[Answer, None, None]:
        most = bounds_of(self.engine.config).batch
        dispatcher = Dispatcher(jobs, self, room=most, most=most)
        with self._lock:
            if self._closed:
                raise ModelClosed
            self._dispatchers.add(dispatcher)
        with closing(dispatcher.answers()) as answers:
            for answer in answers:
                # Of a model that was closed all parts end, each in its own words.
                if self._closed and isinstance(answer.error, RuntimeError):
                    raise ModelClosed from answer.error
                yield answer

    # The backend of a dispatcher

    def prepare(self, job: Job) -> tuple[list[PreparedAsk], Future[Any]]:
        try:  # what is wrong with an ask is known before its image is decoded
            prepared = [self.preparer.prepare(ask) for ask in job.asks]
        except Exception as error:
            failed: Future[Any] = Future()
            failed.set_exception(error)
            return [], failed
        if job.image is None:
            nothing: Future[Any] = Future()
            nothing.set_result(None)
            return prepared, nothing
        return prepared, self.images.later(job.image, job.name)

    def start(self, job: Job, prepared: list[PreparedAsk], picture: Any) -> list[Submitted]:
        image = None if picture is None else self.images.taken(picture)
        requests = list[Submitted]()
        try:
            for ask, ready in zip(job.asks, prepared, strict=True):
                requests.append(self.submit_prepared(image, ready, ask, wait=True))
        except BaseException:  # an interrupt too: it may have to wait
            for request in requests:
                request.cancel()
            raise
        return requests

    def answer(self, job: Job, picture: Any, requests: list[Submitted]) -> Answer:
        results = tuple(request.future.result() for request in requests)
        seen = [] if picture is None else picture if isinstance(picture, list) else [picture]
        size = seen[0].size if seen else (0, 0)
        return Answer(job.key, results, None, size, tuple(note for each in seen for note in each.notes))
