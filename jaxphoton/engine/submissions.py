"""Requests on their way through an engine, and what becomes of each. Belongs to the engine's thread."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from jaxphoton.constraints.grammar import FinishReason
from jaxphoton.engine.metrics import Observers, Outcomes, RequestMetrics
from jaxphoton.engine.request import Sequence
from jaxphoton.engine.scheduler import Scheduler
from jaxphoton.requests.errors import DeadlineExceeded, EngineError, ModelClosed
from jaxphoton.requests.tokens import Generation, Token

# Called with each committed token, and the finish reason with the last; True ends the request with what there is.
OnToken = Callable[[Token, FinishReason | None], bool | None]


@dataclass(slots=True, eq=False)
class Submission:
    """A request on its way.

    Attributes:
      future: the Generation, or the exception that ended the request.
      metrics: what it took; None until it has ended.
    """

    sequence: Sequence
    on_token: OnToken | None = None
    future: Future[Generation] = field(default_factory=Future)
    metrics: RequestMetrics | None = None


class Submissions:
    """The live ones, in the order of their arrival. Each ends once, in one of the ways below, and `on_end` is called.

    Attributes:
      outcomes: how they have ended so far.
    """

    def __init__(
        self, scheduler: Scheduler, observers: Observers, clock: Callable[[], float], on_end: Callable[[], None]
    ):
        self.outcomes = Outcomes()
        self._scheduler, self._observers, self._clock, self._on_end = scheduler, observers, clock, on_end
        self._live: dict[Sequence, Submission] = {}
        self._timed: list[tuple[float, int, Sequence]] = []  # those with a deadline, the next one first

    def add(self, submission: Submission) -> None:
        sequence = submission.sequence
        self._live[sequence] = submission
        if sequence.request.deadline is not None:
            insort(self._timed, (sequence.request.deadline, id(sequence), sequence))
        self._scheduler.add(sequence)

    def token(self, sequence: Sequence) -> None:
        """Hands the newest token on."""
        on_token = self._live[sequence].on_token
        if on_token is None:
            return
        try:
            enough = on_token(sequence.tokens[-1], sequence.finish_reason)
        except Exception as error:  # its own fault: the others go on
            sequence.error, enough = error, True
        if enough and not sequence.finalized:
            sequence.finish_reason = "stop"
            self._scheduler.finalize(sequence)

    def finished(self, sequence: Sequence) -> None:
        """It has ended, by itself or with an error."""
        submission = self._live[sequence]
        # Before the future has its result: whoever waits for that may look at these next.
        submission.metrics = sequence.metrics(self._clock())
        if sequence.error is None:
            self.outcomes.finished += 1
        else:
            self.outcomes.failed += 1
        self._observers.tell("requests", submission)
        if submission.future.set_running_or_notify_cancel():
            if sequence.error is not None:
                submission.future.set_exception(sequence.error)
            else:
                submission.future.set_result(sequence.generation())
        self._forget(sequence)

    def fail(self, sequence: Sequence, error: Exception) -> None:
        """Ends one with an error."""
        sequence.error = error
        self._scheduler.finalize(sequence)
        self.finished(sequence)

    def expire(self) -> None:
        """Ends what has passed its deadline; does not even look at the clock while nobody has one."""
        while self._timed and self._timed[0][0] <= self._clock():
            sequence = self._timed[0][2]
            state = "waited" if sequence.row is None else "ran"
            self.fail(sequence, DeadlineExceeded(f"the deadline passed while the request {state}"))

    def cancel(self, submission: Submission, error: EngineError | None = None) -> None:
        """Ends a request without a result: its future is cancelled, or raises `error`. Nothing if it has ended."""
        sequence = submission.sequence
        if sequence in self._live:
            self._scheduler.finalize(sequence)
            self.outcomes.cancelled += 1
            submission.metrics = sequence.metrics(self._clock())
            self._observers.tell("requests", submission)
            if error is None:
                submission.future.cancel()
            # concurrent.futures.wait does not see cancel alone
            if submission.future.set_running_or_notify_cancel() and error is not None:
                submission.future.set_exception(error)
            self._forget(sequence)

    def close_all(self) -> None:
        for submission in list(self._live.values()):
            self.cancel(submission, ModelClosed())

    def abandon(self, cause: BaseException) -> None:
        """Ends all after a failure that may have broken the scheduler too."""
        for sequence, submission in list(self._live.items()):
            if submission.future.set_running_or_notify_cancel():
                failure = EngineError(f"the engine has failed: {cause}")
                failure.__cause__ = cause
                submission.future.set_exception(failure)
            self._forget(sequence)

    def _forget(self, sequence: Sequence) -> None:
        del self._live[sequence]
        if sequence.request.deadline is not None:
            del self._timed[bisect_left(self._timed, (sequence.request.deadline, id(sequence), sequence))]
        self._on_end()
