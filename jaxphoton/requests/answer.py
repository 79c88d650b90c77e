"""What comes back: the result of an ask, the answer to a job; and the thread that makes results of tokens."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxphoton.constraints.grammar import FinishReason
from jaxphoton.engine.metrics import RequestMetrics
from jaxphoton.prompt.tokenizer import Tokenizer
from jaxphoton.requests.reading import AnswerReader
from jaxphoton.requests.tokens import Generation, OnEvent, Reader, Token

if TYPE_CHECKING:
    from jaxphoton.requests.preparing import PreparedAsk

_log = logging.getLogger(__name__)


class Result(dict):
    """A skill's result in the shape of the `moondream` client.

    Attributes:
      finish_reason: "stop" or "length"; None until a stream has ended.
      seed: what reproduces this result at a temperature above 0.
      tokens: the generated ids, the stop id included; empty until a stream has ended.
      logprob: of all tokens together, at temperature 1.
      logprobs: with the setting of this name the tokens of the answer, {"token", "logprob", "bytes"} each, without the
        stop id; empty until a stream has ended.
      metrics: what it took; None until a stream has ended.
      retries: how often a run has asked again, see `batch.retries`.
    """

    finish_reason: FinishReason | None = None
    seed: int = 0
    tokens: tuple[int, ...] = ()
    logprob: float = 0.0
    logprobs: Sequence[Mapping[str, Any]] = ()
    metrics: RequestMetrics | None = None
    retries: int = 0

    def close(self, generation: Generation, metrics: RequestMetrics | None = None) -> None:
        """Records how the generation ended."""
        self.metrics = metrics
        self.finish_reason = generation.finish_reason
        self.tokens = tuple(token.id for token in generation.tokens)
        self.logprob = sum(token.logprob for token in generation.tokens)

    def complete(self, result: Result) -> None:
        """Takes over how another result ended, but not what is in it."""
        self.finish_reason, self.seed, self.metrics = result.finish_reason, result.seed, result.metrics
        self.tokens, self.logprob, self.logprobs = result.tokens, result.logprob, result.logprobs


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What became of a job: all its results, or the error that kept it from one of them.

    Attributes:
      results: in the order of the asks; `Result`s.
      size: (height, width) of the upright picture; (0, 0) if it was not read.
      notes: what was done to the picture on the way.
    """

    key: Hashable
    results: tuple[Any, ...] = ()
    error: Exception | None = None
    size: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()


class BatchItem(NamedTuple):
    """One image of a batch: `result`, or the `error` that kept it from one."""

    key: Hashable
    result: Result | None
    error: Exception | None


Work = Callable[[], None]


class OutputThread:
    """Does work in the order in which it was put; ends when this is dropped, after what was put before."""

    def __init__(self):
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        threading.Thread(target=_work, args=(self._queue,), name="jaxphoton-outputs", daemon=True).start()
        weakref.finalize(self, self._queue.put, None)
        self.put: Callable[[Work], None] = self._queue.put


def _work(queue: SimpleQueue[Work | None]) -> None:
    while (work := queue.get()) is not None:
        try:
            work()
        except BaseException:  # of somebody's callback: the others wait for this thread
            _log.exception("a callback raised")
        del work  # else it would hold a result until the next comes


class Output:
    """What becomes of one request; knows neither session nor engine, so that a forgotten model can go.

    Args:
      asked: what its result is read for.

    Attributes:
      future: the result, done after the last event.
      heard: takes tokens, on the engine's thread; None where nobody listens.
    """

    def __init__(
        self, asked: PreparedAsk, seed: int, tokenizer: Tokenizer, thread: OutputThread, on_event: OnEvent | None
    ):
        self.future: Future[Result] = Future()
        self._asked, self._seed, self._tokenizer, self._put = asked, seed, tokenizer, thread.put
        self._tell = on_event or (lambda event: None)
        self._fault: Exception | None = None  # of `on_event`
        self._answer: AnswerReader | None = None
        self._reader: Reader | None = None
        if on_event is not None or asked.reading:
            self._reader = asked.form.reader(tokenizer)
        if self._reader is not None and asked.reading:
            self._reader = self._answer = AnswerReader(self._reader, asked.reading, tokenizer)
        self.heard = None if self._reader is None else self._hear

    def _hear(self, token: Token, finish: FinishReason | None) -> bool:
        if self._fault is not None:
            raise self._fault  # which ends the request
        self._put(lambda: self._read(token, finish))
        return self._answer is not None and self._answer.stopped

    def end_with(self, submission: Any) -> None:
        """Completes the result once the engine's future is done; `submission` then has the metrics."""
        submission.future.add_done_callback(lambda _: self._put(lambda: self._end(submission)))

    def _read(self, token: Token, finish: FinishReason | None) -> None:
        assert self._reader is not None
        if self._fault is None:
            try:
                for event in self._reader.push(token, finish):
                    self._tell(event)
            except BaseException as error:  # no SystemExit may reach the engine's thread
                self._fault = error if isinstance(error, Exception) else RuntimeError(f"on_event raised {error!r}")

    def _end(self, submission: Any) -> None:
        try:
            if self._fault is not None:
                raise self._fault
            generation = submission.future.result()
            if self._reader is not None:
                for event in self._reader.finish():
                    self._tell(event)
            result = self._result(generation, submission.metrics)
        except CancelledError:
            self.future.cancel()
            self.future.set_running_or_notify_cancel()
        except BaseException as error:
            if self.future.set_running_or_notify_cancel():
                self.future.set_exception(error)
        else:
            if self.future.set_running_or_notify_cancel():
                self.future.set_result(result)

    def _result(self, generation: Generation, metrics: RequestMetrics | None) -> Result:
        answer, asked = self._answer, self._asked
        if answer is not None and answer.stopped:
            # Of what was generated beyond, until the engine heard of it, nothing is left.
            generation = Generation(generation.tokens[: answer.count], "stop", cut=True)
        result = Result(asked.form.parse(generation, self._tokenizer.decode))
        if generation.cut:
            assert asked.skill.streamed is not None
            result[asked.skill.streamed] = asked.reading.cut(result[asked.skill.streamed])
        result.seed = self._seed
        result.close(generation, metrics)
        if answer is not None:
            result.logprobs = tuple(answer.told)
        return result
