"""The journal of a run: an append-only file of JSON lines, the one truth about what is done."""

from __future__ import annotations

import fcntl
import os
import threading
from collections import Counter
from pathlib import Path

from jaxphoton.batch.errors import JournalError, SettingsDiffer
from jaxphoton.batch.journal.keymap import KeyMap
from jaxphoton.batch.journal.reading import Damage, JournalReader, check_signature, scan
from jaxphoton.batch.journal.record import Header, Record, to_line


class Journal:
    """Writes the records of a run and knows which keys are done.

    A record is handed to the operating system before `write` returns: killing the process loses none, at worst the
    line being written is torn, and the next `Journal` on the file cuts that off. A thread forces lines to the disk
    when `sync_s` seconds have passed or `sync_lines` have come together: a power cut loses no more than those.
    All methods may be called from any thread. A context manager; leaving it closes the journal.

    Args:
      path: created, with its folder, if it does not exist.
      header: what this run is made with; an existing journal must agree (`Header.differences`).
      allow_changes: go on though it does not; the new header is written into the journal.
      retry_failed: failed images do not count as done.

    Attributes:
      counts: keys by status, "ok" and "failed", those of earlier runs included; the last record of a key counts.
      torn: bytes of a torn last line that were cut off.
      damage: lines in the middle that cannot be read; their images will be done again.

    Raises:
      SettingsDiffer: it was made with other settings or another model, and holds an image.
      JournalError: another process writes to it, it is no journal, or it cannot be opened.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        header: Header,
        *,
        allow_changes: bool = False,
        retry_failed: bool = False,
        sync_s: float = 1.0,
        sync_lines: int = 256,
    ):
        self.path = Path(path)
        self.counts: Counter[str] = Counter(ok=0, failed=0)
        self.torn = 0
        self.damage: list[Damage] = []
        self._index, self._retry_failed = KeyMap("Q"), retry_failed
        self._sync_s, self._sync_lines = sync_s, sync_lines
        self._wake = threading.Condition()
        self._unsynced, self._closed = 0, False
        self._fault: OSError | None = None
        self._fd = self._open()
        try:
            self._start(header, allow_changes)
        except BaseException:
            os.close(self._fd)
            raise
        self._syncer = threading.Thread(target=self._sync_loop, name="journal-sync", daemon=True)
        self._syncer.start()

    def __contains__(self, key: str) -> bool:
        """Whether `key` is done."""
        found = self._index.get(key)
        return found is not None and (found & 1 == 1 or not self._retry_failed)

    def write(self, record: Record) -> int:
        """Appends one record.

        Returns:
          where its line starts in the file.

        Raises:
          JournalError: the disk is full or failing, or the journal is closed. The file still holds whole lines only.
        """
        with self._wake:
            if self._closed:
                raise JournalError(f"{self.path}: the journal is closed")
            offset = self._size
            self._append(to_line(record))
            self._count(record, offset)
            self._unsynced += 1
            if self._unsynced in (1, self._sync_lines):
                self._wake.notify()
            return offset

    def reader(self) -> JournalReader:
        """What was written so far, to read while nothing more is: knows the records that count without going through
        the file for them."""
        reader = JournalReader(self.path, self._index)
        reader.damage += self.damage
        return reader

    def flush(self) -> None:
        """Forces what was written to the disk."""
        with self._wake:
            self._unsynced = 0
        try:
            os.fsync(self._fd)
        except OSError as error:
            self._fault = error
        self._check()

    def close(self) -> None:
        """Flushes, and gives the lock back. May be called again."""
        with self._wake:
            if self._closed:
                return
            self._closed = True
            self._wake.notify()
        self._syncer.join()
        try:
            self.flush()
        finally:
            os.close(self._fd)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> int:
        if os.path.exists(self.path) and not os.path.isfile(self.path):  # a pipe would block, a device keep nothing
            raise JournalError(f"{self.path} is no regular file")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise JournalError(f"{self.path}: {error.strerror}") from error
        try:
            # The kernel gives it back when the process dies, however it dies.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            fault = "another process is writing to it" if isinstance(error, BlockingIOError) else error.strerror
            raise JournalError(f"{self.path}: {fault}") from error
        return fd

    def _start(self, header: Header, allow_changes: bool) -> None:
        latest = self._read()
        if latest is not None and not self.counts.total() and not self.damage:
            # A run that was ended before its first image: there is nothing that other settings could get mixed with.
            os.ftruncate(self._fd, 0)
            latest = None
        differences = latest.differences(header) if latest else []
        if differences and not allow_changes:
            raise SettingsDiffer(str(self.path), differences)
        self._size = os.fstat(self._fd).st_size
        if latest is None or differences:
            self._append(to_line(header))
            os.fsync(self._fd)
            self._sync_folder()

    def _read(self) -> Header | None:
        """Takes in what the file holds and cuts a torn last line off; the latest header."""
        latest = None
        with open(self._fd, "rb", closefd=False) as file:
            check_signature(file, self.path)
            for number, (offset, entry) in enumerate(scan(file), 1):
                if isinstance(entry, Record):
                    self._count(entry, offset)
                elif isinstance(entry, Header):
                    latest = entry
                elif number == 1:
                    raise JournalError(f"{self.path}: damaged header: {entry.fault}")
                else:
                    self.damage.append(entry)
        size = os.fstat(self._fd).st_size
        whole = _whole_lines(self._fd, size)
        if whole < size:
            self.torn = size - whole
            os.ftruncate(self._fd, whole)
        return latest

    def _append(self, line: bytes) -> None:
        self._check()
        try:
            written = os.write(self._fd, line)
            if written < len(line):
                raise OSError(None, "the disk is full")
        except OSError as error:
            # A half line now would tear the next one too.
            os.ftruncate(self._fd, self._size)
            raise JournalError(f"{self.path}: {error.strerror}") from error
        self._size += written

    def _count(self, record: Record, offset: int) -> None:
        before = self._index.get(record.key)
        if before is not None:
            self.counts["ok" if before & 1 else "failed"] -= 1
        self.counts[record.status] += 1
        self._index[record.key] = 2 * offset + (record.status == "ok")

    def _check(self) -> None:
        if self._fault is not None:
            raise JournalError(f"{self.path}: {self._fault.strerror}") from self._fault

    def _sync_loop(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._unsynced or self._closed)
                self._wake.wait_for(lambda: self._unsynced >= self._sync_lines or self._closed, self._sync_s)
                if self._closed:
                    return
                self._unsynced = 0
            try:
                os.fsync(self._fd)
            except OSError as error:
                self._fault = error
                return

    def _sync_folder(self) -> None:
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # or a power cut could lose the name of the file
        finally:
            os.close(folder)


def _whole_lines(fd: int, size: int) -> int:
    """Bytes up to and with the last line end."""
    end = size
    while end:
        start = max(0, end - 65536)
        found = os.pread(fd, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
