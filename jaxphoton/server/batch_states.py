"""What is known of batches: their states, as OpenAI's clients know them, and counts of what is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxphoton.bodies.faults import BodyError
from jaxphoton.server.storage import Records

ENDED = ("completed", "failed", "cancelled")


class BatchStates:
    """Records of batches: validating, in_progress, finalizing, then completed or failed; or cancelling, then cancelled.
    From any thread.

    Args:
      folder: where they are kept.
    """

    def __init__(self, folder: Path):
        self._records = Records(folder, "batch_")
        self._lock = threading.Lock()
        self._counts: dict[str, dict[str, int]] = {}  # of those that run: on the disk only when that ends

    def add(self, **known: Any) -> dict[str, Any]:
        """A new one, with what is known of it."""
        new = {
            "id": self._records.new_id(),
            "object": "batch",
            "errors": None,
            "status": "validating",
            "created_at": _now(),
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
        }
        return self._records.add(new | known)

    def get(self, number: str) -> dict[str, Any]:
        """
        Raises:
          BodyError: there is none of this id.
        """
        return self._shown(self._records.get(number))

    def newest_first(self) -> list[dict[str, Any]]:
        return [self._shown(each) for each in self._records.newest_first()]

    def is_cancelling(self, number: str) -> bool:
        return self._records.get(number)["status"] == "cancelling"

    def cancel(self, number: str, begun: bool) -> dict[str, Any]:
        """Notes that one is given up; what has not begun ends at once.

        Raises:
          BodyError: there is none of this id, or it has ended.
        """
        with self._lock:
            record = self._records.get(number)
            if record["status"] in ENDED:
                raise BodyError(f"the batch is {record['status']} already", code="batch_ended")
            if record["status"] != "cancelling":
                record = self._records.change(number, status="cancelling", cancelling_at=_now())
            if not begun:
                record = self._records.change(number, status="cancelled", cancelled_at=_now())
            return self._shown(record)

    def begin(self, number: str, counts: Mapping[str, int]) -> None:
        """Notes that one runs, and how far it was before."""
        self._advance(number, "in_progress", counts)

    def count(self, number: str, failed: bool) -> None:
        """Notes that a request is done."""
        counts = self._counts[number]
        name = "failed" if failed else "completed"
        self._counts[number] = counts | {name: counts[name] + 1}

    def asked(self, number: str) -> None:
        """Notes that nothing more is asked: all is done, or it is given up."""
        counts = self._counts.get(number)
        if counts is not None and counts["completed"] + counts["failed"] == counts["total"]:
            self._advance(number, "finalizing", counts)

    def finish(self, number: str, **outputs: str) -> None:
        """Notes the end of one that has its outputs."""
        with self._lock:
            record = self._shown(self._records.get(number))
            status = "cancelled" if record["status"] == "cancelling" else "completed"
            counts = record["request_counts"]
            self._records.change(number, status=status, request_counts=counts, **outputs, **{f"{status}_at": _now()})

    def fail(self, number: str, fault: str) -> None:
        """Notes why one has no outputs."""
        error = {"code": "batch_failed", "message": fault, "param": None, "line": None}
        with self._lock:
            self._records.change(number, status="failed", failed_at=_now(), errors={"object": "list", "data": [error]})

    def leave(self, number: str) -> None:
        """Notes that one does not run any more."""
        self._counts.pop(number, None)

    def _shown(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """With counts as they are now."""
        return {**record, "request_counts": self._counts.get(record["id"], record["request_counts"])}

    def _advance(self, number: str, status: str, counts: Mapping[str, int]) -> None:
        with self._lock:
            self._counts[number] = dict(counts)
            record = self._records.get(number)
            if record["status"] != "cancelling":
                since = record.get(f"{status}_at") or _now()  # the first time, of one that goes on
                self._records.change(number, status=status, request_counts=dict(counts), **{f"{status}_at": since})


def _now() -> int:
    return int(time.time())
