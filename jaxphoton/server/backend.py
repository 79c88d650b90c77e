"""What stands behind the routes: a model in this process, or several engine processes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from jaxphoton.batch.model import OpenModel, RunModel
from jaxphoton.batch.options import RunOptions
from jaxphoton.batch.workers.inprocess import LocalAnswerer
from jaxphoton.models.protocol import Family
from jaxphoton.requests.adapters import KnownAdapters
from jaxphoton.requests.ask import Ask
from jaxphoton.requests.async_calls import AsyncCalls
from jaxphoton.requests.carrying import SessionCarrier
from jaxphoton.requests.tokens import Event

if TYPE_CHECKING:  # which imports jax
    from jaxphoton.api import Model
    from jaxphoton.engine.engine import Engine


@dataclass(frozen=True, slots=True)
class Occupancy:
    """What requests hold now.

    Attributes:
      rows: sequences that can be decoded at once.
      running, waiting: requests in the engine.
      pages, pages_held: of the key/value pool, and those in use or cached.
      processes, alive: engine processes, and those of them that answer.
    """

    rows: int
    running: int
    waiting: int
    pages: int
    pages_held: int
    processes: int = 1
    alive: int = 1


class Backend(Protocol):
    """What answers."""

    async def call(self, image: Any, ask: Ask) -> Any:
        """One Result."""
        ...

    def events(self, image: Any, ask: Ask) -> AsyncGenerator[Event, None]:
        """The events of an ask, the last of which is the result, with "completed"; closing it gives the ask up."""
        ...

    def start(self) -> None:
        """Compiles what has to be compiled; blocks, from any thread.

        Raises:
          EngineError: it cannot start.
        """
        ...

    def close(self) -> None:
        """Ends all that is under way with ModelClosed; blocks, from any thread, any number of times."""
        ...

    @property
    def most_requests(self) -> int:
        """Requests that it takes at once."""
        ...

    @property
    def failure(self) -> str | None:
        """Why it will never answer again; None while it may."""
        ...

    def occupancy(self) -> Occupancy | None:
        """None before it has started."""
        ...

    def family(self) -> Family | None:
        """Of the model; None where it is not known. May read files."""
        ...

    def run_model(self) -> RunModel:
        """The same for a run over requests."""
        ...

    @property
    def adapters(self) -> KnownAdapters:
        """Those that may be asked for."""
        ...

    @property
    def batch_requests(self) -> int | None:
        """Requests that such a run may have under way, so that others find room; None where it bounds itself."""
        ...


class LocalBackend:
    """A model in this process."""

    def __init__(self, model: Model):
        self._model, self.adapters = model, model.adapters
        self._answerer = LocalAnswerer(model)
        self._engine: Engine | None = None
        calls = AsyncCalls(SessionCarrier(model))
        self.call, self.events = calls.call, calls.events

    @property
    def most_requests(self) -> int:
        return self._model.engine_config.most_requests

    def start(self) -> None:
        self._model.start()
        self._engine = self._model.engine

    def close(self) -> None:
        self._model.close()

    @property
    def failure(self) -> str | None:
        return None if self._engine is None else self._engine.failure

    batch_requests = None

    def family(self) -> Family:
        return self._model.family

    def run_model(self) -> RunModel:
        return OpenModel(self._model, RunOptions())

    def occupancy(self) -> Occupancy | None:
        return None if self._engine is None else Occupancy(**self._answerer.held)
