"""What many GPUs need of everything else: python scripts/scale_model.py [--gpus 10,1000] [--ASSUMPTION VALUE ...]

Every assumption is printed with where it is from: "measured" on two cores without a GPU, "computed", "chosen" as
a user may choose, or "assumed". The rate of a GPU is a share of its floor (`jaxphoton roofline`); all else follows from
it by the arithmetic in `needs`. One job of Ray Data, with one driver, has `job_gpus` GPUs at most.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from jaxphoton.measure.chips import find_chip
from jaxphoton.measure.cost_model import planned_family
from jaxphoton.measure.roofline import cost_of, floor_of

DAY_S = 86400


def assumption(value: Any, source: str, text: str) -> Any:
    return dataclasses.field(default=value, metadata={"source": source, "text": text})


@dataclass(frozen=True)
class Assumptions:
    """What the model is computed from."""

    model: str = assumption("moondream2", "chosen", "in bfloat16")
    gpu: str = assumption("H100", "chosen", "with its datasheet's figures")
    floor_share: float = assumption(0.5, "assumed", "of the floor's rate that a GPU reaches")
    crops: int = assumption(10, "computed", "of such a picture, by the model's rule")
    tokens: int = assumption(60, "assumed", "of a caption")
    rows: int = assumption(32, "chosen", "texts of a step")
    image_kb: float = assumption(356, "measured", "a file: JPEG, 1280x960 with grain (scripts/image_bench.py)")
    image_ms: float = assumption(15, "measured", "of a core to prepare it (scripts/image_bench.py)")
    ray_ms: float = assumption(1.75, "measured", "of a core a picture in Ray's other processes (benchmarks.room)")
    engine_cores: float = assumption(1, "assumed", "for the threads of an engine, a GPU")
    node_gpus: int = assumption(8, "assumed", "GPUs a node")
    block_rows: int = assumption(256, "chosen", "pictures a block (override_num_blocks)")
    tasks: int = assumption(8, "chosen", "blocks that an actor has or waits for (caption_dataset)")
    driver_ms: float = assumption(14, "measured", "of the driver's core a block (benchmarks.room)")
    job_gpus: int = assumption(128, "chosen", "GPUs of one job")
    job_images: float = assumption(20e6, "chosen", "pictures of one job")
    id_bytes: float = assumption(91, "measured", "an id in a checkpoint that is loaded: paths of 36 letters")
    row_bytes: float = assumption(
        104, "measured", "a row that is written, before it is compressed: short captions (benchmarks.room)"
    )
    gets_s: float = assumption(5500, "assumed", "files a second that one prefix of a bucket serves")
    node_hours: float = assumption(6000, "assumed", "of a node between two failures")
    node_back_s: float = assumption(600, "assumed", "until another node has taken its place")
    actor_s: float = assumption(60, "assumed", "until an actor has loaded 4 GB and its programs")
    driver_hours: float = assumption(720, "assumed", "of a driver between two failures")
    driver_back_s: float = assumption(300, "assumed", "until someone has started it again and the checkpoint is read")


def image_s(given: Assumptions) -> float:
    """Seconds of a GPU a picture, at the floor: encoding, image prefix, question and the steps that it has a row of."""
    family, chip = planned_family(given.model), find_chip(given.gpu)

    def floor(part: str) -> float:
        return floor_of(part, cost_of(part, family, "bfloat16", context=850), chip, "bfloat16").seconds

    step = floor(f"step {given.rows}") / given.rows
    return floor(f"encode 1 x {given.crops}") + floor("prefix 1") + floor("prefill 8 x 32") / 8 + given.tokens * step


def needs(given: Assumptions, gpus: int) -> dict[str, str]:
    """What so many GPUs need, as lines of a table."""
    one = given.floor_share / image_s(given)  # pictures a second
    rate, nodes, jobs = one * gpus, math.ceil(gpus / given.node_gpus), math.ceil(gpus / given.job_gpus)
    on_node, in_job = min(gpus, given.node_gpus), min(gpus, given.job_gpus)
    cores = on_node * (given.engine_cores + one * (given.image_ms + given.ray_ms) / 1e3)
    gbit = 8 * given.image_kb * 1e3 / 1e9
    blocks = rate / given.block_rows
    again = given.tasks * given.block_rows  # pictures that an actor has in hand
    node_s = on_node * (given.node_back_s + given.actor_s + again / one)
    node_failures, driver_failures = DAY_S / 3600 * nodes / given.node_hours, DAY_S / 3600 * jobs / given.driver_hours
    driver_s = in_job * (given.driver_back_s + given.actor_s + again / one)
    lost_h = (node_failures * node_s + driver_failures * driver_s) / 3600
    return {
        "pictures a second": f"{rate:,.0f}",
        "pictures a day, millions": f"{rate * DAY_S / 1e6:,.0f}",
        "nodes": f"{nodes:,}",
        "cores a node": f"{cores:.1f}",
        "object store a node, GB": f"{on_node * again * given.image_kb / 1e6:.1f}",
        "network a node, Gbit/s": f"{one * on_node * gbit:.1f}",
        "network in all, Gbit/s": f"{rate * gbit:.0f}",
        "prefixes of a bucket, a file a picture": f"{math.ceil(rate / given.gets_s)}",
        "blocks a second": f"{blocks:.1f}",
        "MB a second written": f"{rate * given.row_bytes / 1e6:.1f}",
        "jobs at once": f"{jobs}",
        "a driver's share of a core": f"{blocks / jobs * given.driver_ms / 1e3:.0%}",
        "minutes a job": f"{given.job_images / (one * in_job) / 60:,.0f}",
        "ids of a job that is resumed, GB": f"{given.job_images * given.id_bytes / 1e9:.1f}",
        "failures a day": f"{node_failures + driver_failures:.2f}",
        "answered again when a node fails": f"{on_node * again:,}",
        "GPU hours lost by failures, a day": f"{lost_h:.2f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", default="10,1000", help="(default: 10,1000)")
    for field in dataclasses.fields(Assumptions):
        text = f"{field.metadata['text']} ({field.metadata['source']}; default: {field.default})"
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default, help=text
        )
    args = vars(parser.parse_args())
    counts = [int(count) for count in args.pop("gpus").split(",")]
    for line in (*told(Assumptions(**args)), "", *table(Assumptions(**args), counts)):
        print(line)


def told(given: Assumptions) -> list[str]:
    """The assumptions as a Markdown table."""
    lines = ["| assumption | value | from | |", "|---|---|---|---|"]
    for field in dataclasses.fields(given):
        value = getattr(given, field.name)
        shown = value if isinstance(value, str) else f"{value:,g}"
        lines.append(f"| {field.name} | {shown} | {field.metadata['source']} | {field.metadata['text']} |")
    return lines


def table(given: Assumptions, counts: list[int]) -> list[str]:
    """The needs as a Markdown table, a column for each number of GPUs."""
    columns = [needs(given, count) for count in counts]
    lines = ["| GPUs | " + " | ".join(f"{count:,}" for count in counts) + " |", "|---" * (len(counts) + 1) + "|"]
    return lines + [f"| {name} | " + " | ".join(column[name] for column in columns) + " |" for name in columns[0]]


if __name__ == "__main__":
    main()
