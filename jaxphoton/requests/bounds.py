"""What may be under way at once, all in one place; memory and queues grow with these and with nothing else.

    the engine         max_rows requests run, and max_waiting wait; more are QueueFull, or wait to be let in
    a batch            reads at most `batch` images ahead of its answers, and keeps at most as many requests in the
                       engine (but all of a single image): while the rows run, the next are ready
    image workers      of the images of a batch, `pictures` are with them: two a worker, and as many again that wait
                       for one or for the engine
    slow sources       `batch.runner` reads a few files more ahead, in bytes
    engine processes   each has `batch` jobs, and the run holds those of one process more: (processes + 1) x batch

So a run in this process holds at most `batch` decoded pictures, whatever its length: at 13 crops of 378 x 378 pixels
5.6 MB each. An image is decoded by its worker, alone; `max_pixels` bounds what that takes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from jaxphoton.config import EngineConfig

SLOTS = 2  # images given to a worker at once: the next is there when one is done
MOST_WORKERS = 8


@dataclass(frozen=True, slots=True)
class Bounds:
    """The numbers of the text above.

    Attributes:
      requests: in the engine, of everybody.
      batch: images, and requests, of one batch.
      pictures: images that the workers have, or that are done and not taken; 0 without workers.
    """

    requests: int
    batch: int
    pictures: int


def bounds_of(engine: EngineConfig, processes: int = 1) -> Bounds:
    """Of one process, where so many share the machine."""
    return Bounds(engine.most_requests, engine.batch_requests, 2 * SLOTS * image_workers(engine, processes))


def image_workers(engine: EngineConfig, processes: int = 1) -> int:
    """Worker processes of each of so many engine processes: by default half the cores are shared among them."""
    if engine.image_workers is not None:
        return engine.image_workers
    return max(1, min(MOST_WORKERS, (os.cpu_count() or 1) // 2 // processes))
