"""The programs of `benchmarks/room`: the driver of a run with Ray Data, and a single process that does the same.

    job.py ray PLAN     captions PLAN["images"] with the cluster at PLAN["address"]
    job.py alone PLAN   captions them with an engine in this process

PLAN is a JSON file:
  images, out: the folder of pictures, and of the tables (or the JSON file, alone) that are written;
  notes: a folder to which actors write what they did;
  checkpoint: a folder, or null;
  actors, blocks, batch: how many there are, and images of a batch;
  idle: whether actors only hand their rows back.
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.room.meter import family_spent
from jaxphoton.config import EngineConfig
from jaxphoton.integrations import ray as integration
from jaxphoton.integrations.ray import ENDS, Captioner, columns_of

# Programs of one size each, so that a picture is answered by the same ones whatever is beside it.
ENGINE = EngineConfig(
    max_rows=8, step_rows=(8,), prefill_rows=(4,), prefill_lengths=(32,), vision=((4, 4),), image_workers=1
)
ARGUMENTS = {"length": "short"}
SETTINGS = {"temperature": 0, "max_tokens": 16}


class Notes:
    """What an actor did, a line each time, in a file of its own."""

    def __init__(self, folder: str):
        self._file = Path(folder, f"{os.getpid()}-{uuid.uuid4().hex}.jsonl")
        self.write(ready=time.time(), spent=family_spent(os.getpid()))

    def write(self, **fields: Any) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps({"pid": os.getpid(), **fields}) + "\n")


class NotedCaptioner(Captioner):
    """Also notes when it was ready, and every batch that it has answered."""

    def __init__(self, *args: Any, notes: str, **options: Any):
        super().__init__(*args, **options)
        self._notes = Notes(notes)

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        async for table in super().__call__(batch):
            self._notes.write(at=time.time(), rows=table.num_rows)
            yield table


class Idle:
    """Has the form of a captioner and answers nothing: what is left is the cost of Ray."""

    def __init__(self, *_: Any, notes: str, **__: Any):
        self._notes = Notes(notes)

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        empty: dict[Any, Any] = {pa.string(): "", pa.int32(): 0}
        for field in (*columns_of("caption"), *ENDS):
            batch = batch.append_column(field, pa.array([empty[field.type]] * batch.num_rows, field.type))
        self._notes.write(at=time.time(), rows=batch.num_rows)
        yield batch


def with_ray(plan: dict[str, Any]) -> None:
    import ray  # pyright: ignore[reportMissingImports]
    import ray.data  # pyright: ignore[reportMissingImports]
    from ray.data.checkpoint import CheckpointConfig  # pyright: ignore[reportMissingImports]

    ray.init(address=plan["address"], log_to_driver=False)
    context: Any = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    if plan["checkpoint"]:
        context.checkpoint_config = CheckpointConfig("path", plan["checkpoint"], delete_checkpoint_on_success=False)
    integration.Captioner = Idle if plan["idle"] else NotedCaptioner
    images = ray.data.read_binary_files(plan["images"], include_paths=True, override_num_blocks=plan["blocks"])
    captions = integration.caption_dataset(
        images,
        "shapes",
        replicas=plan["actors"],
        batch_size=plan["batch"],
        num_cpus=1,
        arguments=ARGUMENTS,
        settings=SETTINGS,
        engine=ENGINE,
        notes=plan["notes"],
    )
    captions.drop_columns(["bytes"]).write_parquet(plan["out"])


def alone(plan: dict[str, Any]) -> None:
    from jaxphoton import Moondream
    from jaxphoton.requests.ask import Ask, Job

    jobs = [Job(path.name, path, (Ask("caption", ARGUMENTS, SETTINGS),)) for path in pictures(plan)]
    with Moondream.from_pretrained("shapes", engine=ENGINE) as model:
        list(model.answer(jobs[:1]))  # as actors try out before they are ready
        before = sum(family_spent(os.getpid()).values())
        found = {
            str(answer.key): None if answer.error is not None else answer.results[0]["caption"]
            for answer in model.answer(jobs)
        }
        spent = sum(family_spent(os.getpid()).values()) - before
    Path(plan["out"]).write_text(json.dumps({"captions": found, "spent": spent}))


def pictures(plan: dict[str, Any]) -> list[Path]:
    return sorted(Path(plan["images"]).iterdir())


if __name__ == "__main__":
    {"ray": with_ray, "alone": alone}[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()))
