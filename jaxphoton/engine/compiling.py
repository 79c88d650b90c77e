"""Programs become executables in threads: how many at once, and what is said meanwhile."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from jaxphoton.engine.buckets import Key
from jaxphoton.engine.memory import human

# For whoever waits meanwhile; the command line shows it.
_log = logging.getLogger("jaxphoton.compiling")
COMPILING = "jaxphoton-compiling"  # names of threads
QUIET_S = 3.0  # programs that come from the cache are not announced one by one

# Of host memory, while one program is compiled beside others: eight programs of the 24 layers of a Moondream 2 at once
# took 13 GB. Measured alone on a CPU, one after the other, eight of a Moondream 0.5B kept 0.5 GB together.
PROGRAM_BYTES = 512 << 20
LAYER_BYTES = 48 << 20


def at_once(cost: int, free: int | None, cores: int) -> int:
    """Programs to compile at once, of `cost` bytes each: as many as there are cores, and memory for; at least one.

    `free` is the host's free memory in bytes, None where it is not known. A quarter of it is left to everybody else.
    """
    fit = cores if free is None else (free - free // 4) // cost
    return max(1, min(cores, fit))


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that the host, or the container that this is, can still hand out; None where it does not say."""
    found = []
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        pass
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        folder = root / "sys/fs/cgroup"
        try:  # "max" where there is no limit
            found.append(max(0, int((folder / limit).read_text()) - int((folder / used).read_text())))
        except (OSError, ValueError):
            continue
    return min(found, default=None)


def compile_all(
    jobs: Mapping[Key, Any], compile_one: Callable[[Key, Any], Callable], layers: int
) -> dict[Key, Callable]:
    """Compiles in threads, within the host's free memory, and says so.

    Args:
      jobs: what is compiled, by the programs' names.
      compile_one: of a name and its job; from any thread. It holds no array: an error that somebody keeps holds it.
      layers: of the model; they decide what compiling takes.
    """
    cost, free, cores = PROGRAM_BYTES + layers * LAYER_BYTES, free_memory(), _cores()
    threads = min(at_once(cost, free, cores), max(1, len(jobs)))
    bound = free is not None and threads < min(cores, len(jobs))
    why = f", as each may take {human(cost)} of memory and {human(free or 0)} are free" if bound else ""
    _log.info("compiling %d programs: %s; %d at once%s", len(jobs), ", ".join(map(spelled, jobs)), threads, why)
    return _in_threads(jobs, compile_one, threads, "compiled")


def load_all(jobs: Mapping[Key, Any], load_one: Callable[[Key, Any], Callable], place: str) -> dict[Key, Callable]:
    """Loads stored programs from a place, in threads, and says so."""
    _log.info("loading %d programs from %s", len(jobs), place)
    return _in_threads(jobs, load_one, _cores(), "loaded")


def spelled(key: Key) -> str:
    """A program's name for people: step 8."""
    return " ".join(map(str, key))


def _in_threads(
    jobs: Mapping[Key, Any], make: Callable[[Key, Any], Callable], threads: int, made: str
) -> dict[Key, Callable]:
    began, done = time.monotonic(), {}

    def timed(name: Key, job: Any) -> tuple[Callable, float]:
        start = time.monotonic()
        return make(name, job), time.monotonic() - start

    pool = ThreadPoolExecutor(threads, thread_name_prefix=COMPILING)
    try:
        under_way = {pool.submit(timed, name, job): name for name, job in jobs.items()}
        for future in as_completed(under_way):
            name = under_way[future]
            done[name], own = future.result()
            seconds = time.monotonic() - began
            if seconds > QUIET_S:
                text = "%s %s in %.1f s, %d of %d, after %.0f s"
                _log.info(text, made, spelled(name), own, len(done), len(jobs), seconds)
    except BaseException as error:
        # Each may take a minute: none begins any more, and who interrupts does not wait for those that have begun.
        pool.shutdown(wait=not isinstance(error, KeyboardInterrupt), cancel_futures=True)
        raise
    pool.shutdown()
    _log.info("%s %d programs in %.1f s", made, len(done), time.monotonic() - began)
    return {name: done[name] for name in jobs}


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
