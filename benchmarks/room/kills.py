"""A run in which parts of the cluster are killed."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.room.cluster import Cluster, kill
from benchmarks.room.run import Run, alone

CPUS = 4  # logical ones of a node: for its actors, and what reads, writes and leaves out beside them


def show_kills(cluster: Cluster, place: Path, images: Path, kills: list[str], broken: int) -> bool:
    """Whether every picture was answered once, and as it is by a single process.

    Args:
      kills: what is killed, "actor", "node" or "driver", one after the other and at even distances.
      broken: how many of the images cannot be read.
    """
    wanted = alone(cluster, place, images)["captions"]
    run = Run(cluster, place / "kills", images, checkpoint=True)
    for number, what in enumerate(kills, 1):
        share = number / (len(kills) + 1)
        run.wait(lambda share=share: run.written() >= share * run.count)
        show_kill(run, what)
    run.finish()
    rows = run.rows()
    found = {Path(row["path"]).name: row["caption"] for row in rows}
    lost, twice = len(wanted.keys() - found.keys()), len(rows) - len(found)
    others = sum(caption != wanted[name] for name, caption in found.items())
    errors = sum(row["finish_reason"] == "error" for row in rows)
    again = run.answered() - run.count
    print(f"kills: {len(rows)} rows of {run.count} pictures, {again} answered again; {errors} of {broken} broken ones")
    print(f"kills: {lost} lost, {twice} twice, {others} not as alone", flush=True)
    return not (lost or twice or others) and errors == broken


def show_kill(run: Run, what: str) -> None:
    """Kills a part, and waits for an actor that began after it; of "actor" and "node" one that has work left."""
    ours, processes = {actor["pid"] for actor in run.actors()}, run.cluster.processes()
    pid, node = next(((pid, part) for pid, part in processes.items() if pid in ours), (0, ""))
    written, killed = run.written(), time.time()
    if what != "driver" and not pid:
        print(f"kills: no {what} to kill at {written} rows: the actors have done their work", flush=True)
        return
    if what == "actor":
        kill([pid])
        how = f"on {node}"
    elif what == "node":
        how = f"{run.cluster.kill_node(node)} processes of {node}; {run.cluster.add_node(CPUS)} joins"
    else:
        run.driver.kill()
        run.driver.wait()
        run.start()
        how = "and started again"

    def later() -> list[float]:
        return [actor["ready"] - killed for actor in run.actors() if actor["ready"] > killed]

    run.wait(lambda: later() or run.driver.poll() == 0)
    then = f"the next actor after {later()[0]:.1f} s" if later() else "the others have done the rest"
    print(f"kills: {what} killed at {written} rows, {how}; {then}", flush=True)
