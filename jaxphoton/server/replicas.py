"""Several engine processes behind the routes, one a GPU; this process has no model, and opens no GPU."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from jaxphoton.batch.errors import BatchError
from jaxphoton.batch.model import Answering, NamedModel, RunModel
from jaxphoton.batch.options import RunOptions
from jaxphoton.batch.workers.inprocess import EngineOptions
from jaxphoton.batch.workers.pool import Replicas
from jaxphoton.batch.workers.protocol import CLOSED, ReplicaError
from jaxphoton.config import EngineConfig
from jaxphoton.models.protocol import Family
from jaxphoton.requests.adapter_folder import AdapterFolder
from jaxphoton.requests.adapters import AdapterPlaces
from jaxphoton.requests.answer import Result
from jaxphoton.requests.ask import Ask
from jaxphoton.requests.async_calls import AsyncCalls
from jaxphoton.requests.carrying import DirectCarrier
from jaxphoton.requests.errors import EngineStartError, ModelClosed
from jaxphoton.requests.tokens import Event
from jaxphoton.server.backend import Occupancy


class ReplicaBackend:
    """A `Backend`. A process that dies is started again, and what it had is tried again or ended, see `Replicas`.

    Args:
      gpus, options, engine: see `Replicas`.
      max_waiting: requests that may wait for each process.
      more: further arguments of `Replicas`.

    Attributes:
      most_requests, adapters: see `Backend`.
    """

    def __init__(
        self,
        gpus: Sequence[str | None],
        options: Mapping[str, Any],
        engine: EngineOptions,
        max_waiting: int | None = None,
        **more: Any,
    ):
        defaults = EngineConfig()
        waiting = defaults.max_waiting if max_waiting is None else max_waiting
        self._rows = engine.rows or defaults.max_rows
        self.most_requests = len(gpus) * (self._rows + waiting)
        self._arguments = (gpus, options, engine), more
        folder = options.get("adapter_folder")
        self.adapters = AdapterPlaces(
            tuple(options.get("adapters", ())), None if folder is None else AdapterFolder(folder)
        )
        self._processes = len(gpus)
        self._lock = threading.Lock()
        self._replicas: Replicas | None = None
        self._calls: AsyncCalls | None = None
        self._closed = False
        self._tried = threading.Event()

    @property
    def pids(self) -> list[int]:
        """Ids of the processes."""
        return self._replicas.pids if self._replicas else []

    def start(self) -> None:
        """Starts the processes and waits for the first.

        Raises:
          EngineStartError: none can start.
          ModelClosed: this was closed meanwhile.
        """
        arguments, more = self._arguments
        with self._lock:
            if self._closed:
                raise ModelClosed
            replicas = Replicas(*arguments, **more, bound=self.most_requests, wait=False)
            self._replicas = replicas
        try:
            replicas.wait()
            self._rows = max(1, replicas.held.get("rows", self._rows) // max(1, replicas.ready))
            self._calls = AsyncCalls(DirectCarrier(replicas, self._processes * 2 * self._rows))
        except ReplicaError as error:
            raise (ModelClosed() if self._closed else EngineStartError(str(error))) from error
        finally:
            self._tried.set()

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._tried.set()
        if self._replicas is not None:
            self._replicas.close()

    async def call(self, image: Any, ask: Ask) -> Result | list[Result]:
        return await self._started().call(image, ask)

    def events(self, image: Any, ask: Ask) -> AsyncGenerator[Event, None]:
        return self._started().events(image, ask)

    @property
    def failure(self) -> str | None:
        fault = self._replicas.fault if self._replicas else None
        return None if fault == CLOSED else fault

    def occupancy(self) -> Occupancy | None:
        if self._calls is None or self._replicas is None:
            return None
        held = self._replicas.held
        running = held.get("running", 0)
        return Occupancy(
            held.get("rows", 0),
            running,
            max(0, self._replicas.unfinished - running),
            held.get("pages", 0),
            held.get("pages_held", 0),
            self._processes,
            self._replicas.ready,
        )

    @property
    def batch_requests(self) -> int:
        """All rows, and half as many that are ready; each process has room for twice its rows."""
        return self._processes * (self._rows + self._rows // 2 + 1)

    def family(self) -> Family | None:
        try:
            return self.run_model().find()
        except BatchError:  # which is told where it starts
            return None

    def run_model(self) -> RunModel:
        """See `Backend`."""
        (_, options, _), _ = self._arguments
        given = {name: value for name, value in options.items() if name not in ("path_or_id", "adapter_folder")}
        return _RunningModel(options["path_or_id"], RunOptions().changed(**given), self.running)

    def running(self) -> Replicas:
        """The processes, once they have started; blocks until then.

        Raises:
          ModelClosed: this was closed, or could not start.
        """
        self._tried.wait()
        if self._closed or self._replicas is None or self._calls is None:
            raise ModelClosed
        return self._replicas

    def _started(self) -> AsyncCalls:
        if self._calls is None:
            raise RuntimeError("it has not started")
        return self._calls


class _RunningModel(NamedModel):
    """A model in processes that run already, and go on when a run has ended."""

    def __init__(self, name: str, options: RunOptions, replicas: Callable[[], Replicas]):
        super().__init__(name, options)
        self._running = replicas

    @contextmanager
    def answering(self, log: Callable[[str], None]) -> Iterator[Answering]:
        replicas = self._running()
        yield replicas, len(replicas.pids)
