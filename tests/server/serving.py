"""A real server on loopback, in a thread; and a stand-in for the model."""

from __future__ import annotations

import asyncio
import base64
import socket
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxphoton.requests.adapters import AdapterPlaces, KnownAdapters
from jaxphoton.requests.answer import Result
from jaxphoton.requests.ask import Ask
from jaxphoton.server.app import DEFAULTS
from jaxphoton.server.backend import Occupancy
from jaxphoton.server.batching import Batches
from jaxphoton.server.listening import Listener, bound
from jaxphoton.server.options import ServerOptions
from jaxphoton.server.service import Service

EXAMPLES = Path(__file__).parents[2] / "examples" / "shapes"
QUESTION = "What is in the picture?"


@contextmanager
def served(service: Service, options: ServerOptions = DEFAULTS, stored: Batches | None = None) -> Iterator[str]:
    """Its address, such as http://127.0.0.1:40123."""
    with bound("127.0.0.1", 0) as socket, listening(Listener(service, options, stored), socket):
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"


@contextmanager
def listening(listener: Listener, socket: socket.socket) -> Iterator[threading.Thread]:
    """Runs a listener in a thread, which it yields, and stops it."""
    ready = threading.Event()
    startup = listener.startup

    async def started(*args, **kwargs) -> None:
        await startup(*args, **kwargs)
        ready.set()

    listener.startup = started
    thread = threading.Thread(target=listener.run, args=([socket],), name="test-server")
    thread.start()
    try:
        assert ready.wait(60)
        yield thread
    finally:
        listener.should_exit = True  # not `stop`: the service may be served again
        thread.join(60)
    assert not thread.is_alive()


def data_address(path: Path) -> str:
    kind = "jpeg" if path.suffix == ".jpg" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


class FakeBackend:
    """Answers with `events`, the last of which is the result, or raises where one is an exception. An event "wait"
    waits until it is released.

    Attributes:
      asked: (image, ask) of all that came.
      arrived: released once for each.
      waiting: set when one waits.
      released: lets those that wait go on; set it from any thread.
      given_up: set when an ask was given up.
    """

    most_requests = 4
    batch_requests = 1
    failure: str | None = None
    adapters: KnownAdapters = AdapterPlaces(())

    def __init__(self, *events):
        self._events = events or (Result(caption="a fake"),)
        self.asked: list[tuple[bytes | None, Ask]] = []
        self.arrived = threading.Semaphore(0)
        self.waiting, self.given_up, self.released = threading.Event(), threading.Event(), threading.Event()

    def start(self) -> None: ...

    def run_model(self):
        raise AssertionError("no batches are run here")

    def close(self) -> None:
        self.released.set()

    def family(self) -> None: ...

    def occupancy(self) -> Occupancy | None:
        return Occupancy(4, len(self.asked), 0, 100, 0)

    async def call(self, image, ask: Ask) -> Result:
        async for event in self.events(image, ask):
            if isinstance(event, Result):
                return event
        raise AssertionError

    async def events(self, image, ask: Ask) -> AsyncGenerator:
        self.asked.append((image, ask))
        self.arrived.release()
        try:
            for event in self._events:
                if isinstance(event, BaseException):
                    raise event
                if event == "wait":
                    self.waiting.set()
                    while not self.released.is_set():
                        await asyncio.sleep(0.001)
                    continue
                if isinstance(event, Result):
                    event = Result(event)
                    event.finish_reason, event["completed"] = "stop", True
                yield event
        except (asyncio.CancelledError, GeneratorExit):
            self.given_up.set()
            raise
