"""An engine process without a model: `python -m tests.batch.workers.fake_child`. What it does is in the settings'
path_or_id and in the bytes of the images."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, cast

from jaxphoton.batch.workers import child
from jaxphoton.engine.metrics import RequestMetrics
from jaxphoton.image.errors import ImageError
from jaxphoton.processes.pipe import Message
from jaxphoton.requests.answer import Answer, Result
from jaxphoton.requests.ask import Ask, Job
from jaxphoton.requests.errors import DeadlineExceeded

METRICS = RequestMetrics(1.5, 0.1, 0.2, 0.3, 0.4, 0.9, 7, 3, 2, 0)
ERRORS = {
    b"broken": ImageError("its name", "corrupt", "the image data is damaged"),
    b"value": ValueError("no such setting"),
    b"other": ZeroDivisionError("by zero"),
}


class Fake:
    """Finishes its jobs two by two, the second first, and the last one when no other comes for a while."""

    def __init__(self):
        self.stages, self.compiling = {"decode": 0.0}, 12.5
        self.held = {"rows": 3, "running": 2}

    def answer(self, jobs: Iterable[Job]) -> Iterator[Answer]:
        queue: SimpleQueue[Job | None] = SimpleQueue()
        threading.Thread(target=lambda: [queue.put(job) for job in jobs], daemon=True).start()
        while first := queue.get():
            time.sleep(0.002)
            second = None if queue.empty() else queue.get()
            for job in (second, first):
                if job is not None:
                    self.stages["decode"] += 1.0
                    yield answered(job)

    def submit(self, image, ask: Ask, on_event=None, wait: bool = False) -> Handed:
        """Pieces of the image's bytes are its events; `slow` ones go on until they are given up, or late."""
        if ask.skill == "wrong":
            raise ValueError("no such skill")
        handed = Handed()
        threading.Thread(target=self._ask, args=(image or b"nothing", ask, on_event, handed), daemon=True).start()
        return handed

    def _ask(self, image: bytes, ask: Ask, on_event, handed: Handed) -> None:
        pieces = image.decode().split()
        while not handed.given_up.is_set():
            for piece in pieces:
                if on_event:
                    on_event({"chunk": piece})
                if piece == "dies":
                    os.kill(os.getpid(), signal.SIGKILL)
                if piece == "once" and not os.path.exists(pieces[-1]):
                    open(pieces[-1], "w").close()
                    os.kill(os.getpid(), signal.SIGKILL)
            if ask.deadline and time.monotonic() >= ask.deadline:
                handed.future.set_exception(DeadlineExceeded("too late"))
                return
            if pieces[0] != "slow":
                result = Result({"answer": image.decode(), "asked": [ask.skill, dict(ask.arguments), ask.priority]})
                result.finish_reason = "stop"
                handed.future.set_result(result)
                return
            time.sleep(0.005)
        os.write(2, b"an ask was given up\n")
        handed.future.cancel()
        handed.future.set_running_or_notify_cancel()


class Handed:
    """An ask that a fake has."""

    def __init__(self):
        self.future, self.given_up = Future(), threading.Event()

    def cancel(self) -> None:
        self.given_up.set()


def answered(job: Job) -> Answer:
    image = job.image if isinstance(job.image, bytes) else job.image.encode()
    if image.startswith(b"poison"):
        time.sleep(0.02)  # those it came with have begun
        os.kill(os.getpid(), signal.SIGKILL)
    if image.startswith(b"stops"):
        os.kill(os.getpid(), signal.SIGSTOP)
    if image == b"stuck":
        time.sleep(3600)
    if image in ERRORS:
        return Answer(job.key, error=ERRORS[image])
    result = Result({"caption": image.decode(), "pid": os.getpid(), "asked": [ask.arguments for ask in job.asks]})
    result.finish_reason, result.seed, result.tokens, result.logprob, result.metrics = "stop", 5, (3, 4), -0.1, METRICS
    result.logprobs = ({"token": "a", "logprob": -0.1, "bytes": [97]},)
    return Answer(job.key, (result,), None, (3, 4), ("rotated",))


def load(settings: Message) -> tuple[Fake, int]:
    how = settings["options"]["path_or_id"]
    if how == "refused":
        raise FileNotFoundError("no such model")
    if how == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "stops":
        os.kill(os.getpid(), signal.SIGSTOP)
    if how.startswith("/"):
        print("loading", flush=True)
        while not os.path.exists(how):
            time.sleep(0.01)
    if how == "talks":
        os.write(1, b"\x00\x00\x00\x05hello\n")  # of a library in C
        print("said on the way", flush=True)
    return Fake(), 6


if __name__ == "__main__":
    print("printed by a start-up file", flush=True)
    child.BEAT_S = 0.05
    child.serve(cast(Any, load))
