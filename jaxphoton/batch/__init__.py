"""Captioning at scale: images in, one journal, every other output made from the journal.

Host only: importing it never imports jax. `workers` are given a model, or load one when they run.

A whole run (`run`; `options`, `observer`, `work`, `model`, `outputs` are its parts)
    result = batch.run("photos/", "captions.jsonl", Ask("caption", {"length": "short"}), limit=1000)
  The same call again goes on where it ended. `RunOptions` holds all options, with the defaults of the command line; a
  `RunObserver` hears of every image. `dryrun.dry_run` tells what a run would need, `exporting.Exporter` makes other
  outputs of a journal later.

Requests of a file (`run_requests`; `jaxphoton.batch.requests`)
    result = batch.run_requests("asks.jsonl", "answers.jsonl")
  In OpenAI's batch form, each line asking something of its own; the same journal, resuming and model.

Sources (`jaxphoton.batch.sources`)
    source = open_source("shards/{000..099}.tar", SourceOptions(columns=("question",)))
    for item in Selection(shard=(0, 8), limit=1000).items(source, done=journal.__contains__):
        pool.submit(item.image(), name=item.key)        # a path, or the bytes; raises ImageError
  `open_source` tells by name what it is: an image, a folder, a glob, `.txt`, `.jsonl`, `.parquet`, `.tar`, braces,
  an address through fsspec. An `Item` has a key, a path, its columns, and reads its bytes when asked. Keys are the
  same in every run: the path below the folder (or as given in a list), `<table>/<row>`, `<tar>/<sample>`, or the key
  column. Iterating holds one folder listing, one row group's keys or one sample, and where keys may come twice up to
  48 bytes a key. What is done is not read again. An entry that cannot be used is an item whose `read` raises;
  the iteration goes on.

Journal (`jaxphoton.batch.journal`)
    with Journal("run.jsonl", Header(settings, model=digest), retry_failed=False) as journal:
        if item.key not in journal:
            journal.write(Record(item.key, "ok", path=item.path, width=w, height=h, results=(
                {"task": "caption", "length": "normal", "caption": text, "tokens": 57, "finish_reason": "stop"},)))
            journal.write(Record(item.key, "failed", path=item.path, reason=error.reason, fault=error.fault))
  The first line is the header; then one line for each finished image, and of several for one key the last counts.
  Opening one cuts a torn last line off (`torn`), reports damage in the middle (`damage`), takes the file's lock, and
  refuses other settings (`SettingsDiffer.differences`). Put the input and whatever changes results into the
  settings. A written record survives the death of the process; a power cut costs a second or 256 lines.

Exports (`jaxphoton.batch.exports`)
    report = export("run.jsonl", "captions.parquet")                    # .jsonl, .parquet, .json (COCO)
    report = export("run.jsonl", None, options=ExportOptions(existing="append"))        # beside the images
    report = export("run.jsonl", "out-%05d.tar", source=source, shard=(0, 8))
  Streams the journal; the index of its keys takes up to 48 bytes a key. Outputs are whole files or none. Parquet has
  the columns of recaptioned datasets: key, url, sha256, org_caption, re_caption, and see `exports.rows.recaption`.
  `report.lost` counts results that could not be written. `Places` (`places`) names a run's files and tries before the
  work whether they can be made; inside `exports.atomic.keeping(files)` no output replaces one of these;
  `ExistingTexts` (`exports.existing`) finds the images whose text is there already.

The loop of a run (`jaxphoton.batch.runner`, `questions`, `workers`)
    questions = Questions((Question("caption"), Question("detect", "person")), {"temperature": 0.0})
    items = Selection().items(source, journal.__contains__)
    Runner(LocalAnswerer(model), questions, sink, stopped=lambda: False).run(items)
  `sink(number, record)` takes each record, for instance to `journal.write`. An `Answerer` is whatever turns
  `jaxphoton.Job`s into `Answer`s in any order, reading them as it needs them: memory stays the same however many
  there are. An image that cannot be read or answered is a record; what every image would fail of ends the run.
  `LocalAnswerer` has a model in this process; `jaxphoton.batch.workers.pool.Replicas` has several engine processes,
  one a GPU.
  With `Dedupe` equal files are asked about once. The journal of a finished run and what is resumed need no model.

All faults that end a run are `BatchError`s with a message for the user; those of one image are `ImageError`s, their
reasons `errors.ENTRY_REASONS`. pyarrow (extra `parquet`) and fsspec's backends are imported when they are needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxphoton.batch.errors import BatchError
    from jaxphoton.batch.observer import RunObserver
    from jaxphoton.batch.options import RunOptions
    from jaxphoton.batch.requests.running import run_requests
    from jaxphoton.batch.running import run
    from jaxphoton.batch.summary import RunResult

# Lazy (PEP 562): what uses a part of this package should not import all of it.
_PUBLIC = {
    "BatchError": "jaxphoton.batch.errors",
    "RunObserver": "jaxphoton.batch.observer",
    "RunOptions": "jaxphoton.batch.options",
    "RunResult": "jaxphoton.batch.summary",
    "run": "jaxphoton.batch.running",
    "run_requests": "jaxphoton.batch.requests.running",
}

__all__ = ["BatchError", "RunObserver", "RunOptions", "RunResult", "run", "run_requests"]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'jaxphoton.batch' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
