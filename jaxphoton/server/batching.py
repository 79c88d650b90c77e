"""Batches: files of requests, answered behind the requests of connections, one after the other, across restarts."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, Protocol

from jaxphoton.batch.errors import BatchError
from jaxphoton.batch.journal.record import Record
from jaxphoton.batch.model import RunModel
from jaxphoton.batch.observer import Beginning, RunObserver
from jaxphoton.batch.requests.runner import RequestRules
from jaxphoton.batch.requests.running import run_requests
from jaxphoton.batch.requests.web import web_pictures
from jaxphoton.batch.workers.protocol import ReplicaError
from jaxphoton.bodies.faults import BodyError
from jaxphoton.bodies.skills import Body
from jaxphoton.requests.errors import EngineError
from jaxphoton.server.batch_states import ENDED, BatchStates
from jaxphoton.server.storage import FileStore, locked

PRIORITY = -1_000_000  # behind all that clients may reasonably ask for
OUTPUTS = ("output_file_id", "error_file_id")
_CLOSE_S = 10.0

_log = logging.getLogger(__name__)


class Served(Protocol):
    """The part of a server that batches need."""

    def run_model(self) -> RunModel:
        """What answers; it may still be compiling."""
        ...

    @property
    def batch_requests(self) -> int | None:
        """Requests of a batch under way at once, so that others find room; None for no bound of its own."""
        ...


class Batches:
    """Runs batches in a thread, by `run_requests`: with a journal each, so that they go on after a restart.

    A context manager; leaving it gives up what is under way, which goes on with the next start.

    Args:
      folder: where all is kept.
      served: what answers.
      resolve: see `RequestRules`.
      remote: whether pictures may be http addresses.
      ending: whether the server is told to stop.
      name: what answers call the model; None for the name that it was loaded by.

    Attributes:
      folder: where all is kept.
      files: of clients, the outputs of batches among them.
      states: of batches.

    Raises (by `with`):
      OSError: the folder cannot be used, or another process has it.
    """

    def __init__(
        self,
        folder: Path,
        served: Served,
        resolve: Callable[[Body], Body] | None = None,
        remote: bool = False,
        ending: Callable[[], bool] = lambda: False,
        name: str | None = None,
    ):
        self.folder, self._served, self._resolve, self._remote = folder, served, resolve, remote
        self._ending, self._name = ending, name
        self._changed = threading.Condition()
        self._waiting: deque[str] = deque()
        self._closing = False
        self._opened = ExitStack()

    def __enter__(self) -> Batches:
        self._opened.enter_context(locked(self.folder))
        try:
            self.files = FileStore(self.folder / "files")
            self.states = BatchStates(self.folder / "batches")
        except BaseException:
            self._opened.close()
            raise
        unfinished = [each for each in self.states.newest_first() if each["status"] not in ENDED]
        self.files.clean({output for each in unfinished for output in each["outputs"]})
        for each in self.states.newest_first():
            if each["status"] in ("completed", "cancelled"):  # if it ended before the journal was removed
                self._journal(each["id"]).unlink(missing_ok=True)
        self._waiting.extend(each["id"] for each in reversed(unfinished))
        self._thread = threading.Thread(target=self._work, name="jaxphoton-batches", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(_CLOSE_S)  # it may wait for an engine that hangs
        self._opened.close()

    def create(self, endpoint: str, file: str, window: str, metadata: Mapping[str, str] | None) -> dict[str, Any]:
        """
        Raises:
          BodyError: there is no such file.
        """
        self.files.records.get(file, "input_file_id")
        batch = self.states.add(
            endpoint=endpoint,
            input_file_id=file,
            completion_window=window,
            metadata=metadata,
            # What they will be called, so that a restart makes the same ones.
            outputs=[self.files.records.new_id() for _ in OUTPUTS],
        )
        with self._changed:
            self._waiting.append(batch["id"])
            self._changed.notify_all()
        return batch

    def cancel(self, number: str) -> dict[str, Any]:
        """
        Raises:
          BodyError: there is none of this id, or it has ended.
        """
        with self._changed:
            waits = number in self._waiting
            if waits:
                self._waiting.remove(number)
        return self.states.cancel(number, begun=not waits)

    def remove_file(self, number: str) -> None:
        """
        Raises:
          BodyError: there is none of this id, or a batch still reads it.
        """
        for each in self.states.newest_first():
            if each["input_file_id"] == number and each["status"] not in ENDED:
                raise BodyError(f"{each['id']} still reads this file", code="file_in_use")
        self.files.remove(number)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if self._closing:
                    return
                number = self._waiting.popleft()
            try:
                self._try(number)
            except (EngineError, ReplicaError, OSError) as error:
                # Nothing is lost: it goes on with the next start, when the engine works again, or the disk has room.
                if not self._is_closing():
                    _log.warning("batches wait for the next start: %s", error)
                return
            finally:
                self.states.leave(number)

    def _try(self, number: str) -> None:
        """
        Raises:
          EngineError, ReplicaError, OSError: what no batch can go on with.
        """
        try:
            self._run(number)
        except (EngineError, ReplicaError, OSError):
            raise
        except BatchError as error:
            self._fail(number, str(error).replace(f"{self.folder}/", ""))  # where it is, is no client's business
        except Exception as error:
            _log.error("a batch failed", exc_info=error)
            self._fail(number, "a fault of the server; its log says more")

    def _run(self, number: str) -> None:
        batch = self.states.get(number)
        answers, errors = (self.files.path(each) for each in batch["outputs"])
        served = self._served
        with web_pictures() if self._remote else nullcontext() as fetch:
            run_requests(
                self.files.path(batch["input_file_id"]),
                answers,
                errors,
                model=served.run_model(),
                journal=str(self._journal(number)),
                rules=RequestRules(
                    batch["endpoint"], False, fetch, self._resolve, PRIORITY, served.batch_requests, self._name
                ),
                observer=_Watch(self.states, number),
                leave=lambda: self._is_closing() or self.states.is_cancelling(number),
            )
        if self.states.is_cancelling(number) or not self._is_closing():
            self._finish(number)

    def _finish(self, number: str) -> None:
        """Makes the outputs known as files."""
        told: dict[str, Any] = {}
        for name, output in zip(OUTPUTS, self.states.get(number)["outputs"], strict=True):
            path = self.files.path(output)
            if path.exists() and path.stat().st_size:
                self.files.told(output, f"{number}_{name.partition('_')[0]}.jsonl", "batch_output")
                told[name] = output
            else:
                path.unlink(missing_ok=True)
        self.states.finish(number, **told)
        self._journal(number).unlink(missing_ok=True)

    def _fail(self, number: str, fault: str) -> None:
        for output in self.states.get(number)["outputs"]:
            self.files.path(output).unlink(missing_ok=True)
        self.states.fail(number, fault)

    def _journal(self, number: str) -> Path:
        return self.folder / "batches" / f"{number}.journal"

    def _is_closing(self) -> bool:
        return self._closing or self._ending()


class _Watch(RunObserver):
    """Tells of the progress of one batch."""

    def __init__(self, states: BatchStates, number: str):
        self._states, self._number = states, number

    def begin(self, beginning: Beginning) -> None:
        done, failed = beginning.done, beginning.failed
        counts = {"total": beginning.count() or 0, "completed": done - failed, "failed": failed}
        self._states.begin(self._number, counts)

    def image(self, number: int, record: Record) -> None:
        self._states.count(self._number, record.status == "failed")

    def end(self) -> None:
        self._states.asked(self._number)
