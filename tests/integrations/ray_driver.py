"""A program that captions a folder with Ray Data on this machine, twice, with actors that die on the way.

Arguments: the folder of images, and the folder for
  replaced/: an actor that ends at its fourth batch, once; Ray starts it again;
  resumed/, checkpoint/, resumed.json: an actor that is gone for good once some rows are durable, and the same again
    with one that lives. The JSON has the error, and the rows and files that were durable after it;
  *.processes: what had been started by the actors that died, and in the end by this program.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pyarrow.parquet as pq
import ray  # pyright: ignore[reportMissingImports]
import ray.data  # pyright: ignore[reportMissingImports]
from ray.data.checkpoint import CheckpointConfig  # pyright: ignore[reportMissingImports]

from jaxphoton.config import EngineConfig
from jaxphoton.integrations import ray as integration
from jaxphoton.integrations.ray import Captioner
from tests.integrations.processes import descendants

ENGINE = EngineConfig(
    max_rows=8, step_rows=(8,), prefill_rows=(4,), prefill_lengths=(32,), vision=((4, 20),), image_workers=1
)


class Fatal(Captioner):
    """Dies at its fourth batch: if `died` does not exist yet, or for good when `checkpoint` has rows."""

    def __init__(self, *args, died: Path | None = None, checkpoint: Path | None = None, **options):
        super().__init__(*args, **options)
        self._died, self._checkpoint, self._calls = died, checkpoint, 0

    async def __call__(self, batch):
        self._calls += 1
        if self._calls == 4 and self._died is not None and not self._died.exists():
            note_processes(self._died)
            os._exit(1)
        while self._calls >= 4 and self._checkpoint is not None:
            if committed(self._checkpoint):
                note_processes(self._checkpoint.with_suffix(".processes"))
                ray.kill(ray.get_runtime_context().current_actor, no_restart=True)
            await asyncio.sleep(0.05)
        async for answer in super().__call__(batch):
            yield answer


def note_processes(file: Path) -> None:
    file.write_text(" ".join(descendants(os.getpid())))


def committed(checkpoint: Path) -> list[Path]:
    return [file for file in checkpoint.glob("*.parquet") if ".pending" not in file.name]


def caption(folder: Path, out: Path, actor: type[Captioner], **options) -> None:
    """Ten blocks of images, one parquet file each."""
    integration.Captioner = actor
    images = ray.data.read_binary_files(str(folder), include_paths=True, override_num_blocks=10)
    captioned = integration.caption_dataset(images, "shapes", engine=ENGINE, batch_size=4, **options)
    captioned.drop_columns(["bytes"]).write_parquet(str(out))


def main(folder: Path, root: Path) -> None:
    # Logical CPUs: resuming needs some beside the actor's, and hangs with 2.
    ray.init(num_cpus=8, num_gpus=0, object_store_memory=200 * 2**20, include_dashboard=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    caption(folder, root / "replaced", Fatal, died=root / "died.processes")

    out, checkpoint, error = root / "resumed", root / "checkpoint", ""
    context.checkpoint_config = CheckpointConfig("path", str(checkpoint), delete_checkpoint_on_success=False)
    try:
        caption(folder, out, Fatal, checkpoint=checkpoint)
    except ray.exceptions.RayError as fault:
        error = repr(fault)
    durable = committed(checkpoint)
    rows = sum(pq.read_metadata(file).num_rows for file in durable)
    files = [file.name for file in out.glob("*.parquet") if any(file.name.startswith(each.stem) for each in durable)]
    caption(folder, out, Captioner)
    (root / "resumed.json").write_text(json.dumps({"error": error, "durable": rows, "files": files}))
    note_processes(root / "driver.processes")
    ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
