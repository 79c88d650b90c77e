"""Compare the batch loop with its floor: python scripts/batch_floor.py [--images N] [--rounds N].

Captions of synthetic 640x480 JPEG files with the packaged model on this machine. The floor is cores / (processor
seconds of the engine and of preparing an image, for one image): no loop can be faster. Rounds of the engine alone
(images prepared before) and of the whole loop (files, workers, journal) take turns; run it on a quiet machine. On a
busy one only the processor seconds mean something.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from jaxphoton import Moondream
from jaxphoton.batch.journal import Journal
from jaxphoton.batch.journal.record import Header
from jaxphoton.batch.questions import Question, Questions
from jaxphoton.batch.runner import Runner
from jaxphoton.batch.sources import open_source
from jaxphoton.batch.workers.inprocess import LocalAnswerer
from jaxphoton.image.prepare import prepare
from jaxphoton.measure.throughput import synthetic_images
from jaxphoton.platform import calmed_interpreter
from jaxphoton.requests.ask import Ask, Job

SETTINGS = {"temperature": 0.0, "max_tokens": 40}
ASK = Ask("caption", {}, SETTINGS)
TICKS = os.sysconf("SC_CLK_TCK")


class Spent(NamedTuple):
    """Seconds of the clock and of processors."""

    wall: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400, help="of each part of a round")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with (
        tempfile.TemporaryDirectory() as place,
        Moondream.from_pretrained("shapes") as model,
        calmed_interpreter(),  # as the command does
    ):
        # All parts of a round have the same pictures, and encode them anew.
        model.engine_config = replace(model.engine_config, share_prefixes=False)
        ratios = []
        own, resize = model.family.pictures, model.picture_options["resize"]
        for number in range(args.rounds + 1):
            folder = make_folder(Path(place, str(number)), args.images)
            jobs = [Job(path.name, model.encode_image(path), (ASK,)) for path in folder.iterdir()]
            engine = spent(lambda given=jobs: engine_only(model, given), list)
            images = spent(lambda folder=folder: [prepare(str(p), own, resize=resize) for p in folder.iterdir()], list)
            workers = model.session.images.pool()
            assert workers is not None
            loop = spent(lambda folder=folder: whole_loop(model, folder), lambda pool=workers: pool.worker_pids)
            if number == 0:
                continue  # compiled here
            floor, rate = cores * args.images / (engine.cpu + images.cpu), args.images / loop.wall
            ratios.append(rate / floor)
            print(
                f"load {os.getloadavg()[0]:.1f}: engine alone {args.images / engine.wall:.1f}/s,"
                f" whole loop {rate:.1f}/s, floor {floor:.1f}/s, ratio {rate / floor:.2f}; processor ms an image:"
                f" engine {1e3 * engine.cpu / args.images:.1f} + image {1e3 * images.cpu / args.images:.1f}, whole loop"
                f" {1e3 * loop.cpu / args.images:.1f}, ratio {(engine.cpu + images.cpu) / loop.cpu:.2f}",
                flush=True,
            )
        print(f"the whole loop at {statistics.median(ratios):.2f} of its floor, the median of {args.rounds} rounds")


def make_folder(folder: Path, images: int) -> Path:
    folder.mkdir()
    for number, data in enumerate(synthetic_images(images, 640, 480, seed=int.from_bytes(folder.name.encode()))):
        (folder / f"{number}.jpg").write_bytes(data)
    return folder


def spent(work: Callable[[], object], children: Callable[[], list[int]]) -> Spent:
    """What `work` costs this process and its children."""
    wall, cpu = time.monotonic(), time.process_time() + sum(map(cpu_of, children()))
    work()
    return Spent(time.monotonic() - wall, time.process_time() + sum(map(cpu_of, children())) - cpu)


def cpu_of(process: int) -> float:
    """Processor seconds so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def engine_only(model: Moondream, jobs: list[Job]) -> None:
    assert all(answer.error is None for answer in model.answer(jobs))


def whole_loop(model: Moondream, folder: Path) -> None:
    with Journal(folder.with_suffix(".journal"), Header({}, "shapes")) as journal:
        runner = Runner(
            LocalAnswerer(model),
            Questions((Question("caption"),), SETTINGS),
            lambda number, record: journal.write(record),
        )
        runner.run(open_source(str(folder)).items())
        assert journal.counts["failed"] == 0


if __name__ == "__main__":
    main()
