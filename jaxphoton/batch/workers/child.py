"""One engine process: `python -m jaxphoton.batch.workers.child`, started and fed by `jaxphoton.batch.workers.pool`.

Frames on stdin (see `protocol`): first the settings, then jobs. Frames on stdout: first how many jobs it
takes at once and how long it compiled, or why it cannot start, then answers in the order in which they are ready; from
the greeting on, signs of life between them. It ends when stdin does, whatever it is doing. What libraries print goes to
stderr, which the run shows.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from queue import SimpleQueue
from typing import IO, Any, Protocol

from jaxphoton.batch.workers.engine_options import EngineOptions
from jaxphoton.batch.workers.inprocess import LocalAnswerer
from jaxphoton.batch.workers.protocol import error_fields, pack_answer, read_job
from jaxphoton.messages import compiling_shown
from jaxphoton.processes.frames import Message, pack, read_frame, send
from jaxphoton.processes.serve import die_with_parent, take_streams
from jaxphoton.requests.answer import Answer
from jaxphoton.requests.ask import Job

# One line, so that whatever a site's start-up files print before it can be told apart.
GREETING = b"jaxphoton replica\n"
# Between signs of life.
BEAT_S = 2.0


class Answerer(Protocol):
    """What answers jobs in a process; see `LocalAnswerer`."""

    @property
    def compiling(self) -> float: ...

    @property
    def stages(self) -> Mapping[Any, float]: ...

    def answer(self, jobs: Iterable[Job], /) -> Iterator[Answer]: ...


def serve(load: Callable[[Message], tuple[Answerer, int]]) -> None:
    """Answers until stdin ends.

    Args:
      load: from the settings to what answers, ready to, and the number of jobs it takes at once.
    """
    # Ctrl-C and the signals of batch systems go to all processes; the run decides what they mean for its images.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    tasks, stdout = take_streams()
    die_with_parent()
    replies = _Replies(stdout)
    try:
        replies.send(GREETING)
        threading.Thread(target=replies.beat, daemon=True).start()
        settings = read_frame(tasks)
        jobs: SimpleQueue[Job] = SimpleQueue()
        threading.Thread(target=_listen, args=(tasks, jobs), daemon=True).start()
        try:
            answerer, room = load(settings)
        except Exception as error:
            replies.send(pack({"refused": error_fields(error)}))
            os._exit(1)
        replies.stages = answerer.stages
        replies.send(pack({"room": room, "compiling": answerer.compiling}))
        for answer in answerer.answer(iter(jobs.get, None)):
            replies.send(pack_answer(answer, answerer.stages))
    except (EOFError, BrokenPipeError):
        os._exit(0)
    except Exception:
        traceback.print_exc()
        os._exit(1)  # an engine that has failed may not let go of its device


def load_model(settings: Message) -> tuple[Answerer, int]:
    """A compiled `Moondream`, and the jobs that it takes at once.

    Args:
      settings: "options" of `Moondream.from_pretrained`, fields of EngineOptions as "engine", and "gpu": whether the
        process was given one.

    Raises:
      ValueError: jax does not see the GPU, besides what loading a model raises.
    """
    import jax

    from jaxphoton.api import Moondream
    from jaxphoton.platform import calm_interpreter

    if settings["gpu"] and jax.default_backend() == "cpu":
        raise ValueError("there are GPUs, but this jax uses none: install jaxphoton[cuda12], or set JAX_PLATFORMS=cpu")
    options = settings["options"]
    if "background" in options:
        options["background"] = tuple(options["background"])
    model = Moondream.from_pretrained(**options)
    model.engine_config = EngineOptions(**settings["engine"]).applied(model.engine_config, model.config.text)
    answerer = _HealthyAnswerer(model)
    with compiling_shown(""):
        answerer.start()
    calm_interpreter()
    return answerer, model.engine_config.batch_requests


class _Replies:
    """What this process says, from several threads.

    Attributes:
      stages: of the answerer; empty until there is one.
    """

    def __init__(self, stdout: IO[bytes]):
        self._stdout, self._lock = stdout, threading.Lock()
        self.stages: Mapping[Any, float] = {}

    def send(self, frame: bytes) -> None:
        with self._lock:
            send(self._stdout, frame)

    def beat(self) -> None:
        """A thread of its own: loading and compiling take minutes, and this process must not be taken for stopped."""
        try:
            while True:
                time.sleep(BEAT_S)
                self.send(pack({"stages": self.stages}))
        except OSError:
            os._exit(0)  # nobody listens


class _HealthyAnswerer(LocalAnswerer):
    """Ends with what only a new process can mend."""

    def answer(self, jobs: Iterable[Job]) -> Iterator[Answer]:
        from jaxphoton.requests.errors import EngineError

        for answer in super().answer(jobs):
            if isinstance(answer.error, EngineError):
                raise answer.error
            yield answer


def _listen(tasks: IO[bytes], jobs: SimpleQueue[Job]) -> None:
    """A thread of its own, so that the end of the run also ends a process that compiles or waits for its device."""
    try:
        while True:
            jobs.put(read_job(tasks))
    except EOFError:
        os._exit(0)


if __name__ == "__main__":
    serve(load_model)
