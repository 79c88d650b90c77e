"""What a run costs, with captioners and with actors that do nothing."""

from __future__ import annotations

import collections
import statistics
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
      driver_s: those of the driver.
      ray_s: those of other workers and of Ray's own processes.
    """

    rate: float | None
    start_s: float
    actors_s: float
    driver_s: float
    ray_s: float

    @property
    def all_s(self) -> float:
        return self.actors_s + self.driver_s + self.ray_s


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
        driver_s=meter.of(run.driver.pid),
        ray_s=sum(meter.of(pid) for pid in meter.spent.keys() - before.keys() - {run.driver.pid}),
    )


def show_rate(cluster: Cluster, place: Path, few: Path, many: Path, turns: int) -> None:
    """Prints medians of runs that take turns: captioners on few images, idle actors on few and on many."""
    sizes = [sum(1 for _ in images.iterdir()) for images in (few, many)]
    single: list[float] = []
    found: dict[tuple[int, str], list[Cost]] = collections.defaultdict(list)
    runs = [(actors, "ours", few) for actors in ACTORS] + [(2, "idle", few), (2, "idle-more", many)]
    for turn in range(turns):
        single.append(alone(cluster, place, few)["spent"] / sizes[0])
        for actors, part, images in runs:
            cost = cost_of(cluster, place / f"{turn}-{actors}-{part}", images, actors, part != "ours")
            found[actors, part].append(cost)
            show_run(turn, actors, part, cost)
    print(f"rate: {sizes[0]} pictures, medians of {turns} turns; processor time but for pictures/s")
    print(f"rate: a single process: {1e3 * statistics.median(single):.1f} ms a picture")
    for actors in ACTORS:
        show_actors(actors, found[actors, "ours"], sizes[0])
    show_idle(found[2, "idle"], found[2, "idle-more"], sizes)


def show_run(turn: int, actors: int, part: str, cost: Cost) -> None:
    rate = f"{cost.rate:.1f} pictures/s" if cost.rate else "no rate"
    others = f"driver {cost.driver_s:.1f} s, Ray's other processes {cost.ray_s:.1f} s"
    print(f"rate: turn {turn + 1}, {actors} {part}: {rate}, actors {cost.actors_s:.1f} s, {others}", flush=True)


def show_actors(actors: int, costs: list[Cost], count: int) -> None:
    rate = statistics.median(cost.rate or 0 for cost in costs)
    spent = statistics.median(1e3 * cost.actors_s / count for cost in costs)
    start = statistics.median(cost.start_s for cost in costs)
    others = statistics.median(cost.driver_s + cost.ray_s for cost in costs)
    print(
        f"rate: {actors} actors: {rate:.1f} pictures/s, {spent:.1f} ms a picture, {start:.1f} s to start one,",
        f"{others:.1f} s in Ray's processes",
    )


def show_idle(few: list[Cost], many: list[Cost], sizes: list[int]) -> None:
    """The cost of a run and of a picture, from runs of two sizes."""
    pairs, more = list(zip(few, many, strict=True)), sizes[1] - sizes[0]
    whole = statistics.median((last.all_s - first.all_s) / more for first, last in pairs)
    driver = statistics.median((last.driver_s - first.driver_s) / more for first, last in pairs)
    fixed = statistics.median(cost.all_s for cost in few) - whole * sizes[0]
    print(
        f"rate: 2 idle actors, also with {sizes[1]} pictures: {fixed:.1f} s a run, {1e3 * whole:.2f} ms a picture,",
        f"of which {1e3 * driver:.2f} are the driver's",
    )
