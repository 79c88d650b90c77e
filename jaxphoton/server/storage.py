"""What clients have stored: files, and what is known of them; on disk, for the next start too."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

from jaxphoton.batch.exports.atomic import replacing
from jaxphoton.bodies.faults import BodyError
from jaxphoton.messages import quoted

_LONGEST_NAME = 255

_log = logging.getLogger(__name__)


class Records:
    """JSON objects by id, each a file in a folder: never half a one, whenever the process ends. From any thread.

    Args:
      folder: made if it is not there.
      prefix: that ids begin with.

    Raises:
      OSError: the folder cannot be used.
    """

    def __init__(self, folder: Path, prefix: str):
        self._folder, self._prefix = folder, prefix
        self._form = re.compile(rf"{re.escape(prefix)}[0-9a-f]{{32}}")
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        found = [each for path in folder.glob(f"{prefix}*.json") if (each := _read(path)) is not None]
        found = [each for each in found if self.is_id(str(each.get("id")))]
        self._records = {each["id"]: each for each in sorted(found, key=lambda each: each.get("order", 0))}

    def __contains__(self, number: str) -> bool:
        with self._lock:
            return number in self._records

    def is_id(self, text: str) -> bool:
        """Whether it has the form of one."""
        return self._form.fullmatch(text) is not None

    def new_id(self) -> str:
        return self._prefix + secrets.token_hex(16)

    def add(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Keeps a new one; "order" tells which came first."""
        return self._keep({**record, "order": time.time_ns()})

    def change(self, number: str, **values: Any) -> dict[str, Any]:
        return self._keep({**self.get(number), **values})

    def get(self, number: str, param: str | None = None) -> dict[str, Any]:
        """
        Raises:
          BodyError: there is none of this id.
        """
        with self._lock:
            found = self._records.get(number)
        if found is None:
            raise BodyError(f"there is no {quoted(number)} here", param, "not_found", 404)
        return dict(found)

    def remove(self, number: str) -> None:
        """
        Raises:
          BodyError: there is none of this id.
        """
        self.get(number)
        (self._folder / f"{number}.json").unlink(missing_ok=True)
        with self._lock:
            self._records.pop(number, None)

    def newest_first(self) -> list[dict[str, Any]]:
        with self._lock:
            return [dict(each) for each in reversed(self._records.values())]

    def _keep(self, record: dict[str, Any]) -> dict[str, Any]:
        assert self.is_id(record["id"])  # it becomes the name of a file
        with self._lock:
            with replacing(self._folder / f"{record['id']}.json") as file:
                file.write(json.dumps(record).encode())
                _sync(file)
            self._records[record["id"]] = record
        return dict(record)


class FileStore:
    """Files of clients, by id; the name that a client gives one is only told back.

    Args:
      folder: of the files.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self.records = Records(folder, "file-")

    def path(self, number: str) -> Path:
        """Where the content of an id is, or is to be. Only for ids of `records`, which have a fixed form."""
        return self._folder / number

    def add(self, content: BinaryIO, name: str, purpose: str) -> dict[str, Any]:
        """Keeps a copy of a file.

        Raises:
          BodyError: there is no room on the disk.
        """
        number = self.records.new_id()
        path = self.path(number)
        try:
            with replacing(path) as file:
                shutil.copyfileobj(content, file, 1 << 20)
                _sync(file)
            return self.told(number, name, purpose)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise no_room(error) from error

    def told(self, number: str, name: str, purpose: str) -> dict[str, Any]:
        """Makes the content that is at `path` known as a file."""
        name = name[:_LONGEST_NAME].encode("utf-8", "replace").decode()
        return self.records.add(
            {
                "id": number,
                "object": "file",
                "bytes": self.path(number).stat().st_size,
                "created_at": int(time.time()),
                "expires_at": None,
                "filename": name,
                "purpose": purpose,
                "status": "processed",
                "status_details": None,
            }
        )

    def clean(self, kept: Container[str]) -> None:
        """Removes what an earlier process has begun and not finished.

        Args:
          kept: ids whose content is there before they are known.
        """
        for path in self._folder.iterdir():
            draft = path.name.startswith(".file-") and path.name.endswith(".tmp")
            if draft or (self.records.is_id(path.name) and path.name not in self.records and path.name not in kept):
                path.unlink()

    def remove(self, number: str) -> None:
        """
        Raises:
          BodyError: there is none of this id.
        """
        self.records.remove(number)
        self.path(number).unlink(missing_ok=True)


def no_room(error: OSError) -> BodyError:
    """What a client is told of a disk that takes no more; other errors of the system are raised.

    Raises:
      OSError: `error`.
    """
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise error
    return BodyError("the disk of the server is full", code="no_space", status=507)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a folder for this process.

    Raises:
      OSError: it cannot be made, or another process has it (BlockingIOError).
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


def _sync(file: IO[bytes]) -> None:
    """Has it on the disk before it takes its name: a power cut would else leave an empty file of that name."""
    file.flush()
    os.fsync(file.fileno())


def _read(path: Path) -> dict[str, Any] | None:
    """None for what is damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        found = None
    if isinstance(found, dict):
        return found
    _log.warning("%s is damaged, and passed over", path)
    return None
