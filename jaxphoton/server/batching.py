"""Batches: files of requests, answered behind the requests of connections, one after the other, across restarts."""

from __future__ import annotations

import logging
import threading
import time
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
from jaxphoton.server.storage import FileStore, Records, locked

PRIORITY = -1_000_000  # behind all that clients may reasonably ask for
ENDED = ("completed", "failed", "cancelled")
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
      check: raises BodyError for a body that is not to be answered.
      remote: whether pictures may be http addresses.
      ending: whether the server is told to stop.

    Attributes:
      files: of clients, the outputs of batches among them.
      records: of batches.

    Raises (by `with`):
      OSError: the folder cannot be used, or another process has it.
    """

    def __init__(
        self,
        folder: Path,
        served: Served,
        check: Callable[[Body], None] = lambda body: None,
        remote: bool = False,
        ending: Callable[[], bool] = lambda: False,
    ):
        self._folder, self._served, self._check, self._remote = folder, served, check, remote
        self._ending = ending
        self._changed = threading.Condition()
        self._waiting: deque[str] = deque()
        self._closing = False
        self._counts: dict[str, dict[str, int]] = {}  # of the one that runs
        self._opened = ExitStack()

    def __enter__(self) -> Batches:
        self._opened.enter_context(locked(self._folder))
        try:
            self.files = FileStore(self._folder / "files")
            self.records = Records(self._folder / "batches", "batch_")
        except BaseException:
            self._opened.close()
            raise
        unfinished = [each for each in self.records.newest_first() if each["status"] not in ENDED]
        self.files.clean({output for each in unfinished for output in each["outputs"]})
        for each in self.records.newest_first():
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
        record = self.records.add(
            {
                "id": self.records.new_id(),
                "object": "batch",
                "endpoint": endpoint,
                "errors": None,
                "input_file_id": file,
                "completion_window": window,
                "status": "validating",
                "created_at": _now(),
                "metadata": metadata,
                "request_counts": {"total": 0, "completed": 0, "failed": 0},
                # What they will be called, so that a restart makes the same ones.
                "outputs": [self.files.records.new_id(), self.files.records.new_id()],
            }
        )
        with self._changed:
            self._waiting.append(record["id"])
            self._changed.notify_all()
        return record

    def get(self, number: str) -> dict[str, Any]:
        """
        Raises:
          BodyError: there is none of this id.
        """
        return self.shown(self.records.get(number))

    def shown(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A record with counts as they are now."""
        return {**record, "request_counts": self._counts.get(record["id"], record["request_counts"])}

    def cancel(self, number: str) -> dict[str, Any]:
        """
        Raises:
          BodyError: there is none of this id, or it has ended.
        """
        with self._changed:
            record = self.records.get(number)
            if record["status"] in ENDED:
                raise BodyError(f"the batch is {record['status']} already", code="batch_ended")
            if record["status"] != "cancelling":
                record = self.records.change(number, status="cancelling", cancelling_at=_now())
            if number in self._waiting:
                self._waiting.remove(number)
                record = self.records.change(number, status="cancelled", cancelled_at=_now())
        return self.shown(record)

    def remove_file(self, number: str) -> None:
        """
        Raises:
          BodyError: there is none of this id, or a batch still reads it.
        """
        for each in self.records.newest_first():
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
                self._run(number)
            except (EngineError, ReplicaError) as error:
                # Nothing is lost: it goes on with the next start.
                if not self._is_closing():
                    _log.warning("batches wait for the next start: %s", error)
                return
            except BatchError as error:
                self._fail(number, str(error))
            except Exception as error:
                _log.error("a batch failed", exc_info=error)
                self._fail(number, "a fault of the server; its log says more")
            finally:
                self._counts.pop(number, None)

    def _run(self, number: str) -> None:
        record = self.records.get(number)
        answers, errors = (self.files.path(each) for each in record["outputs"])
        with web_pictures() if self._remote else nullcontext() as fetch:
            run_requests(
                self.files.path(record["input_file_id"]),
                answers,
                errors,
                model=self._served.run_model(),
                journal=str(self._journal(number)),
                rules=RequestRules(
                    record["endpoint"], False, fetch, self._check, PRIORITY, self._served.batch_requests
                ),
                observer=_Watch(self, number),
                leave=lambda: self._is_closing() or self._is_cancelling(number),
            )
        if self._is_cancelling(number) or not self._is_closing():
            self._finish(number)

    def _finish(self, number: str) -> None:
        """Makes the outputs known as files."""
        told: dict[str, Any] = {}
        record = self.records.get(number)
        for name, output in zip(("output_file_id", "error_file_id"), record["outputs"], strict=True):
            path = self.files.path(output)
            if path.exists() and path.stat().st_size:
                self.files.told(output, f"{number}_{name.partition('_')[0]}.jsonl", "batch_output")
                told[name] = output
            else:
                path.unlink(missing_ok=True)
        with self._changed:
            status = "cancelled" if self._is_cancelling(number) else "completed"
            counts = self._counts.get(number, record["request_counts"])
            self.records.change(number, status=status, request_counts=counts, **told, **{f"{status}_at": _now()})
        self._journal(number).unlink(missing_ok=True)

    def _fail(self, number: str, fault: str) -> None:
        for output in self.records.get(number)["outputs"]:
            self.files.path(output).unlink(missing_ok=True)
        error = {"code": "batch_failed", "message": fault, "param": None, "line": None}
        with self._changed:
            self.records.change(number, status="failed", failed_at=_now(), errors={"object": "list", "data": [error]})

    def _journal(self, number: str) -> Path:
        return self._folder / "batches" / f"{number}.journal"

    def _is_closing(self) -> bool:
        return self._closing or self._ending()

    def _is_cancelling(self, number: str) -> bool:
        return self.records.get(number)["status"] == "cancelling"

    def begin(self, number: str, counts: Mapping[str, int]) -> None:
        """Notes that one runs, and how far it was before."""
        self._advance(number, "in_progress", counts)

    def count(self, number: str, failed: bool) -> None:
        """Notes that a line is done."""
        counts = self._counts[number]
        name = "failed" if failed else "completed"
        self._counts[number] = counts | {name: counts[name] + 1}

    def end(self, number: str) -> None:
        """Notes that no line is asked about any more."""
        counts = self._counts.get(number)
        if counts is not None and counts["completed"] + counts["failed"] == counts["total"]:
            self._advance(number, "finalizing", counts)

    def _advance(self, number: str, status: str, counts: Mapping[str, int]) -> None:
        with self._changed:
            self._counts[number] = dict(counts)
            record = self.records.get(number)
            if record["status"] != "cancelling":
                since = record.get(f"{status}_at") or _now()  # the first time, of one that goes on
                self.records.change(number, status=status, request_counts=dict(counts), **{f"{status}_at": since})


class _Watch(RunObserver):
    """Tells of the progress of one batch."""

    def __init__(self, batches: Batches, number: str):
        self._batches, self._number = batches, number

    def begin(self, beginning: Beginning) -> None:
        counts = {
            "total": beginning.count() or 0,
            "completed": beginning.done - beginning.failed,
            "failed": beginning.failed,
        }
        self._batches.begin(self._number, counts)

    def image(self, number: int, record: Record) -> None:
        self._batches.count(self._number, record.status == "failed")

    def end(self) -> None:
        self._batches.end(self._number)


def _now() -> int:
    return int(time.time())
