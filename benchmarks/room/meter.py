"""Processor seconds of processes, from /proc."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from benchmarks.room.cluster import Cluster, running

TICKS = os.sysconf("SC_CLK_TCK")


class Meter:
    """Processor seconds of a cluster's processes from now on; use `with`. They are read twice a second: a process that
    ends loses what it has spent since."""

    def __init__(self, cluster: Cluster):
        self._cluster, self._ended = cluster, threading.Event()
        self.before, self.spent = self._read(), {}

    def __enter__(self) -> Meter:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.spent |= self._read()

    def of(self, pid: int) -> float:
        """Seconds that a process has spent since the beginning."""
        return self.spent.get(pid, 0.0) - self.before.get(pid, 0.0)

    def _run(self) -> None:
        while not self._ended.wait(0.5):
            self.spent |= self._read()

    def _read(self) -> dict[int, float]:
        stats = {pid: stat_of(pid)[1] for pid in self._cluster.processes()}
        return {pid: spent for pid, spent in stats.items() if spent}  # the others may have ended meanwhile


def stat_of(pid: int) -> tuple[int, float]:
    """A process's parent and its processor seconds until now, user and system; zeros when it has ended."""
    try:
        fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0, 0.0
    return int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS


def family_spent(pid: int) -> dict[int, float]:
    """Processor seconds of a process and those that it has started (not those that they have)."""
    stats = {each: stat_of(each) for each in running()}
    return {each: spent for each, (parent, spent) in stats.items() if pid in (each, parent)}
