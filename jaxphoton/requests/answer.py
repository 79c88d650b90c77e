"""What comes back: the result of an ask, the answer to a job; and the thread that makes results of tokens."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, NamedTuple

from jaxphoton.constraints.grammar import FinishReason
from jaxphoton.engine.metrics import RequestMetrics
from jaxphoton.prompt.tokenizer import Tokenizer
from jaxphoton.requests.tokens import Form, Generation, OnEvent, Reader, Token

_log = logging.getLogger(__name__)


class Result(dict):
    """A skill's result in the shape of the `moondream` client.

    Attributes:
      finish_reason: "stop" or "length"; None until a stream has ended.
      seed: what reproduces this result at a temperature above 0.
      tokens: the generated ids, the stop id included; empty until a stream has ended.
      logprob: of all tokens together, at temperature 1.
      metrics: what it took; None until a stream has ended.
    """

    finish_reason: FinishReason | None = None
    seed: int = 0
    tokens: tuple[int, ...] = ()
    logprob: float = 0.0
    metrics: RequestMetrics | None = None

    def close(self, generation: Generation, metrics: RequestMetrics | None = None) -> None:
        """Records how the generation ended."""
        self.metrics = metrics
        self.finish_reason = generation.finish_reason
        self.tokens = tuple(token.id for token in generation.tokens)
        self.logprob = sum(token.logprob for token in generation.tokens)

    def complete(self, result: Result) -> None:
        """Takes over how another result ended, but not what is in it."""
        self.finish_reason, self.seed, self.metrics = result.finish_reason, result.seed, result.metrics
        self.tokens, self.logprob = result.tokens, result.logprob


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

    Attributes:
      future: the result, done after the last event.
      heard: takes tokens, on the engine's thread; None where nobody listens.
    """

    def __init__(self, form: Form, seed: int, tokenizer: Tokenizer, thread: OutputThread, on_event: OnEvent | None):
        self.future: Future[Result] = Future()
        self._form, self._seed, self._tokenizer, self._put = form, seed, tokenizer, thread.put
        self._on_event = on_event
        self._reader: Reader | None = None if on_event is None else form.reader(tokenizer)
        self._fault: Exception | None = None  # of `on_event`
        self.heard = None if self._reader is None else self._hear

    def _hear(self, token: Token, finish: FinishReason | None) -> None:
        if self._fault is not None:
            raise self._fault  # which ends the request
        self._put(lambda: self._read(token, finish))

    def end_with(self, submission: Any) -> None:
        """Completes the result once the engine's future is done; `submission` then has the metrics."""
        submission.future.add_done_callback(lambda _: self._put(lambda: self._end(submission)))

    def _read(self, token: Token, finish: FinishReason | None) -> None:
        assert self._reader is not None and self._on_event is not None
        if self._fault is None:
            try:
                for event in self._reader.push(token, finish):
                    self._on_event(event)
            except BaseException as error:  # no SystemExit may reach the engine's thread
                self._fault = error if isinstance(error, Exception) else RuntimeError(f"on_event raised {error!r}")

    def _end(self, submission: Any) -> None:
        try:
            if self._fault is not None:
                raise self._fault
            generation = submission.future.result()
            if self._reader is not None and self._on_event is not None:
                for event in self._reader.finish():
                    self._on_event(event)
            result = Result(self._form.parse(generation, self._tokenizer.decode))
            result.seed = self._seed
            result.close(generation, submission.metrics)
        except CancelledError:
            self.future.cancel()
            self.future.set_running_or_notify_cancel()
        except BaseException as error:
            if self.future.set_running_or_notify_cancel():
                self.future.set_exception(error)
        else:
            if self.future.set_running_or_notify_cancel():
                self.future.set_result(result)
