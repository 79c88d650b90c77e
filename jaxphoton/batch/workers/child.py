"""One engine process: `python -m jaxphoton.batch.workers.child`, started and fed by `jaxphoton.batch.workers.pool`.

What it is told (see `protocol`): first the settings, then jobs, asks, and which of these are given up. What it says:
first how many it takes at once and how long it compiled, or why it cannot start, then answers, events and results as
they are ready; from the greeting on, signs of life between them. What libraries print goes to stderr, which the run
shows.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Any, NoReturn

from jaxphoton.batch.workers.inprocess import EngineOptions, LocalAnswerer
from jaxphoton.batch.workers.protocol import (
    answer_message,
    ask_of,
    error_fields,
    image_of,
    job_of,
    result_fields,
)
from jaxphoton.messages import compiling_shown
from jaxphoton.processes.parent import Parent
from jaxphoton.processes.pipe import CANCEL, Message
from jaxphoton.requests.ask import Job
from jaxphoton.requests.errors import DeadlineExceeded, EngineError, QueueFull
from jaxphoton.requests.submitting import Pending
from jaxphoton.requests.tokens import Event

# One line, so that whatever a site's start-up files print before it can be told apart.
GREETING = b"jaxphoton replica\n"
# Between signs of life.
BEAT_S = 2.0
# Asks whose images are read at once: decoding is most of handing one over.
_READERS = 8


def serve(load: Callable[[Message], tuple[LocalAnswerer, int]]) -> None:
    """Answers until the parent is gone.

    Args:
      load: from the settings to what answers, ready to, and the number of jobs it takes at once.
    """
    # Ctrl-C and the signals of batch systems go to all processes; the run decides what they mean for its images.
    parent = Parent(signal.SIGINT, signal.SIGTERM)
    parent.greet(GREETING)
    answerer: LocalAnswerer | None = None

    def account() -> Message:
        return {"stages": answerer.stages, "held": answerer.held} if answerer else {"stages": {}}

    parent.beat(BEAT_S, account)
    settings = parent.receive()
    orders: SimpleQueue[Message] = SimpleQueue()
    parent.listen(orders.put)
    try:
        answerer, room = load(settings)
    except Exception as error:
        parent.send({"refused": error_fields(error)})
        os._exit(1)
    parent.send({"room": room, "compiling": answerer.compiling, "held": answerer.held})
    jobs: SimpleQueue[Job] = SimpleQueue()
    asks = _Asks(answerer, parent)

    def sort() -> None:
        while True:
            message = orders.get()
            if "asks" in message:
                jobs.put(job_of(message))
            elif CANCEL in message:
                asks.cancel(message["number"])
            else:
                asks.take(message)

    threading.Thread(target=sort, daemon=True).start()
    try:
        for answer in answerer.answer(iter(jobs.get, None)):
            if answer.error is not None and _is_mortal(answer.error):
                raise answer.error
            parent.send(answer_message(answer) | {"stages": answerer.stages})
    except Exception as error:
        _end(error)


def load_model(settings: Message) -> tuple[LocalAnswerer, int]:
    """A compiled `Model`, and the jobs that it takes at once.

    Args:
      settings: "options" of `Model.from_pretrained`, fields of EngineOptions as "engine", and "gpu": whether the
        process was given one.

    Raises:
      ValueError: jax does not see the GPU, besides what loading a model raises.
    """
    import jax

    from jaxphoton.api import Model
    from jaxphoton.platform import calm_interpreter

    if settings["gpu"] and jax.default_backend() == "cpu":
        raise ValueError("there are GPUs, but this jax uses none: install jaxphoton[cuda12], or set JAX_PLATFORMS=cpu")
    options = settings["options"]
    if "background" in options:
        options["background"] = tuple(options["background"])
    model = Model.from_pretrained(**options)
    model.engine_config = EngineOptions(**settings["engine"]).applied(model.engine_config, model.family.max_context)
    answerer = LocalAnswerer(model)
    with compiling_shown(""):
        answerer.start()
    calm_interpreter()
    return answerer, model.engine_config.batch_requests


class _Asks:
    """The asks that this process has: their images are read by a few threads, the rest is the engine's."""

    def __init__(self, answerer: LocalAnswerer, parent: Parent):
        self._answerer, self._parent = answerer, parent
        self._lock = threading.Lock()
        self._pending: dict[int, Pending | None] = {}  # None until it is handed over
        self._readers = ThreadPoolExecutor(_READERS)

    def take(self, message: Message) -> None:
        self._pending[message["number"]] = None
        self._readers.submit(self._submit, message)

    def cancel(self, number: int) -> None:
        """Gives one up, if it has not ended."""
        with self._lock:
            pending = self._pending.pop(number, None)
        if pending is not None:
            pending.cancel()

    def _submit(self, message: Message) -> None:
        number = message["number"]
        try:
            on_event = partial(self._say_event, number) if message["events"] else None
            pending = self._answerer.submit(image_of(message), ask_of(message), on_event, wait=True)
        except Exception as error:
            future: Future[Any] = Future()
            future.set_exception(error)
            self._finished(number, future)
            return
        with self._lock:
            given_up = number not in self._pending
            if not given_up:
                self._pending[number] = pending
        if given_up:
            pending.cancel()
        pending.future.add_done_callback(partial(self._finished, number))

    def _say_event(self, number: int, event: Event) -> None:
        self._parent.send({"number": number, "event": event})

    def _finished(self, number: int, future: Future[Any]) -> None:
        with self._lock:
            self._pending.pop(number, None)
        try:
            said = {"result": result_fields(future.result())}
        except CancelledError:
            said = {CANCEL: True}
        except Exception as error:
            if _is_mortal(error):
                _end(error)
            said = {"error": error_fields(error)}
        self._parent.send({"number": number, "stages": self._answerer.stages, **said})


def _is_mortal(error: Exception | None) -> bool:
    """Whether only a new process can mend it."""
    return isinstance(error, EngineError) and not isinstance(error, (DeadlineExceeded, QueueFull))


def _end(error: Exception) -> NoReturn:
    traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(1)  # an engine that has failed may not let go of its device


if __name__ == "__main__":
    serve(load_model)
