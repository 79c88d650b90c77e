"""What a run costs, with captioners and with actors that do nothing."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.room.cluster import Cluster
from benchmarks.room.meter import Meter
from benchmarks.room.run import Run, alone

ACTORS = (1, 2, 4)


@dataclass(frozen=True)
class Cost:
    """Of a run without faults.

    Attributes:
      rate: rows a second from when all actors were ready; None where no row came later.
      start_s: processor seconds of an actor and its image worker until it was ready.
      actors_s: those of all of them since.
      ray_s: those of the driver, of other workers and of Ray's own processes.
    """

    rate: float | None
    start_s: float
    actors_s: float
    ray_s: float


def cost_of(cluster: Cluster, place: Path, images: Path, actors: int, idle: bool) -> Cost:
    with Meter(cluster) as meter:
        run = Run(cluster, place, images, checkpoint=False, actors=actors, idle=idle)
        run.finish()
    begun = run.actors()
    if len(begun) != actors or run.answered() != run.count:
        raise RuntimeError(f"{len(begun)} actors have answered {run.answered()} of {run.count}")
    all_ready = begun[-1]["ready"]
    batches = [note for note in run.notes() if note.get("at", 0) > all_ready]
    before = {int(pid): spent for actor in begun for pid, spent in actor["spent"].items()}
    return Cost(
        rate=sum(note["rows"] for note in batches) / (max(note["at"] for note in batches) - all_ready)
        if batches
        else None,
        start_s=sum(before.values()) / actors,
        actors_s=sum(meter.of(pid) - spent for pid, spent in before.items()),
        ray_s=sum(meter.of(pid) for pid in meter.spent.keys() - before.keys()),
    )


def show_rate(cluster: Cluster, place: Path, few: Path, many: Path, turns: int) -> None:
    """Prints medians of runs that take turns: captioners on a few images, actors that do nothing on few and on many."""
    sizes = [sum(1 for _ in images.iterdir()) for images in (few, many)]
    single: list[float] = []
    found: dict[tuple[int, str], list[Cost]] = collections.defaultdict(list)
    for turn in range(turns):
        single.append(alone(cluster, place, few)["spent"])
        for actors in ACTORS:
            for part, images in (("ours", few), ("idle", few), ("idle-many", many)):
                cost = cost_of(cluster, place / f"{turn}-{actors}-{part}", images, actors, part != "ours")
                found[actors, part].append(cost)
    print(f"rate: medians of {turns} turns; {sizes[0]} pictures, and {sizes[1]} for Ray alone; ms of processors")
    print(f"rate: a single process {1e3 * statistics.median(single) / sizes[0]:.1f} ms a picture")
    for actors in ACTORS:
        ours, idle, many_idle = (found[actors, part] for part in ("ours", "idle", "idle-many"))
        rate = middle(cost.rate or 0 for cost in ours)
        spent = middle(1e3 * cost.actors_s / sizes[0] for cost in ours)
        start = middle(cost.start_s for cost in ours)
        both = [[cost.ray_s + cost.start_s * actors + cost.actors_s for cost in costs] for costs in (idle, many_idle)]
        slope = middle((last - first) / (sizes[1] - sizes[0]) for first, last in zip(*both, strict=True))
        fixed = middle(both[0]) - slope * sizes[0]
        print(
            f"rate: {actors} actors {rate:.1f} pictures/s, {spent:.1f} ms a picture, {start:.1f} s for one to start;",
            end=" ",
        )
        print(f"Ray {1e3 * slope:.2f} ms a picture and {fixed:.1f} s a run", flush=True)


def middle(values: Iterable[float]) -> float:
    return statistics.median(list(values))
