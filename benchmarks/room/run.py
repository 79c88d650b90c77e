"""A run of Ray Data in a cluster of `benchmarks.room`: its driver, what its actors note, and what is written."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq

from benchmarks.room.cluster import Cluster

PATIENCE_S = 300.0
A_BLOCK = 50  # pictures: what is lost at most of a block that is not written yet
T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """What `job.py` is told, and explains."""

    images: str
    out: str
    notes: str = ""
    checkpoint: str | None = None
    actors: int = 2
    blocks: int = 1
    batch: int = 16
    idle: bool = False
    address: str = ""

    def command(self, what: str, file: Path) -> list[str]:
        file.write_text(json.dumps(asdict(self)))
        return [sys.executable, "-m", "benchmarks.room.job", what, str(file)]


class Run:
    """A driver, which is started at once."""

    def __init__(self, cluster: Cluster, place: Path, images: Path, *, checkpoint: bool, **options: Any):
        """
        Args:
          place: a folder that is made, for all that the run writes.
          options: more of a `Plan`.
        """
        self.cluster, self.place = cluster, place
        self.count = sum(1 for _ in images.iterdir())
        for name in ("notes", "out", "checkpoint"):
            (place / name).mkdir(parents=True)
        self.plan = Plan(
            images=str(images),
            out=str(place / "out"),
            notes=str(place / "notes"),
            checkpoint=str(place / "checkpoint") if checkpoint else None,
            blocks=max(10, self.count // A_BLOCK),
            address=cluster.address,
            **options,
        )
        self._sizes: dict[str, int] = {}
        self.start()

    def start(self) -> None:
        command = self.plan.command("ray", self.place / "plan.json")
        self.driver = self.cluster.popen(command, self.place / "driver.log")

    def finish(self) -> None:
        self.wait(lambda: self.driver.poll() == 0)

    def wait(self, wanted: Callable[[], T]) -> T:
        """What is wanted, once there is any.

        Raises:
          RuntimeError: the driver has ended without, or nothing was answered for long.
        """
        since, seen = time.monotonic(), -1
        while not (found := wanted()):
            if self.driver.poll() is not None and not (found := wanted()):
                raise RuntimeError(f"the driver has ended:\n{(self.place / 'driver.log').read_text()[-4000:]}")
            if (answered := self.answered()) != seen:
                since, seen = time.monotonic(), answered
            if time.monotonic() - since > PATIENCE_S:
                raise RuntimeError(f"nothing was answered for {PATIENCE_S:.0f} s, after {seen} pictures")
            time.sleep(0.1)
        return found

    def notes(self) -> list[dict[str, Any]]:
        """What actors have noted; a line that is not whole is left out."""
        text = "".join(file.read_text().rpartition("\n")[0] + "\n" for file in Path(self.plan.notes).iterdir())
        return [json.loads(line) for line in text.splitlines() if line]

    def actors(self) -> list[dict[str, Any]]:
        """The notes of actors on their beginning, the latest last."""
        return sorted((note for note in self.notes() if "ready" in note), key=lambda note: note["ready"])

    def answered(self) -> int:
        """Rows that actors have answered, more than once where they had to."""
        return sum(note.get("rows", 0) for note in self.notes())

    def written(self) -> int:
        """Rows whose checkpoint is there."""
        for file in Path(self.plan.checkpoint or "").glob("*.parquet"):
            if ".pending" not in file.name and file.name not in self._sizes:
                self._sizes[file.name] = pq.read_metadata(file).num_rows
        return sum(self._sizes.values())

    def rows(self) -> list[dict[str, Any]]:
        return [row for file in Path(self.plan.out).glob("*.parquet") for row in pq.read_table(file).to_pylist()]


def alone(cluster: Cluster, place: Path, images: Path) -> dict[str, Any]:
    """What a single process answers ("captions", by the name of the file) and has "spent" in processor seconds."""
    plan = Plan(str(images), str(place / "alone.json"))
    subprocess.run(plan.command("alone", place / "alone.plan"), env=cluster.environment, check=True)
    return json.loads(Path(plan.out).read_text())
