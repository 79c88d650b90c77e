"""From the PATHs of a command to one JSON line an image."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from jaxphoton.cli.base import OK, SOME_FAILED, CommandError, settings_of
from jaxphoton.cli.tracing import before_loading, recorded

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})

Record = dict[str, Any]

PATHS_HELP = f"""\
paths:
  A file is always tried. A folder is searched with all its subfolders for {", ".join(sorted(SUFFIXES))}
  (hidden files are left out), in sorted order.

output:
  One JSON object a line: "key" is the path inside the folder given (or the path as given), then the answer.
  An image that cannot be read has "error" instead, the others go on, and the exit code is 2.
"""


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """The images and where the lines go."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="an image, or a folder of images")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the JSON lines to this file (replacing it) and readable lines to stdout; else JSON to stdout",
    )


def find_images(paths: list[str]) -> dict[str, Path]:
    """Key -> file, in the order of the paths given, sorted within a folder.

    Raises:
      CommandError: nothing was found, or two different files would have the same key.
    """
    found: dict[str, Path] = {}
    for given in paths:
        for key, path in _expand(given):
            other = found.setdefault(key, path)
            if other is not path and not _same(other, path):
                raise CommandError(f"{other} and {path} would both have the key {key!r}: run them separately")
    if not any(path.exists() for path in found.values()):
        missing = [given for given in paths if not Path(given).exists()]
        raise CommandError("no images found: " + (f"{missing[0]} does not exist" if missing else ", ".join(paths)))
    return found


def _expand(given: str) -> Iterator[tuple[str, Path]]:
    path = Path(given)
    if not path.is_dir():
        yield given.replace(os.sep, "/"), path
        return
    files = []
    for folder, subfolders, names in os.walk(path):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        files += [Path(folder, name) for name in names if not name.startswith(".")]
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    yield from sorted((file.relative_to(path).as_posix(), file) for file in images)


def _same(one: Path, other: Path) -> bool:
    return one == other or (one.exists() and other.exists() and one.samefile(other))


def load_model(args: argparse.Namespace):
    """The model that `--model` names.

    Raises:
      CommandError: there is no such model, or its files are not usable.
    """
    from jaxphoton.api import Moondream
    from jaxphoton.config import ConfigError
    from jaxphoton.weights.load import WeightsError

    extra = {} if args.max_pixels is None else {"max_pixels": args.max_pixels}
    try:
        return Moondream.from_pretrained(args.model, revision=args.revision, dtype=args.dtype, **extra)
    except (ConfigError, WeightsError, OSError) as error:
        raise CommandError(f"model {args.model!r}: {error}") from error


def run_images(
    args: argparse.Namespace, task: str, arguments: Record, fields: tuple[str, ...], readable: Callable[[Record], str]
) -> int:
    """Asks the model about every image and writes a line for each, in the order of the images.

    Arguments:
      task: "caption", "query", "detect" or "point".
      arguments: of the task, the same for every image.
      fields: of a result, those that go into the line.
      readable: a record as text for people.
    Returns:
      The exit code.
    """
    images = find_images(args.paths)
    if args.out and not args.out.absolute().parent.is_dir():
        raise CommandError(f"--out {args.out}: no folder {args.out.absolute().parent}")
    before_loading(args)
    model = load_model(args)
    if args.depth is not None:
        model.engine_config = dataclasses.replace(model.engine_config, depth=args.depth)
    how = "greedy" if args.temperature == 0 else f"temperature {args.temperature:g}"
    many = f"{len(images)} image{'s' * (len(images) != 1)}"
    print(f"jaxphoton {args.command}: {many}, model {args.model}, {how}", file=sys.stderr, flush=True)
    failed = 0
    # The trace outermost: closing the model ends what is under way.
    with recorded(args, model), model, _lines(args.out) as out, _progress(len(images)) as bar:
        for key, answer in _ask(model, task, images, arguments, settings_of(args)):
            record = {"key": key} | {name: answer[name] for name in (*fields, "error") if name in answer}
            failed += "error" in record
            # One write and one flush a line: whenever the run ends, the file holds whole lines only.
            _write(out, json.dumps(record, ensure_ascii=False))
            if args.out:
                _write(sys.stdout, f"{key}: " + (_failure(record) or readable(record)).replace("\n", " "))
            bar.update()
    if failed:
        print(f"jaxphoton {args.command}: {failed} of {many} failed", file=sys.stderr)
    return SOME_FAILED if failed else OK


def _ask(
    model: Any, task: str, images: dict[str, Path], arguments: Record, settings: Record
) -> Iterator[tuple[str, Record]]:
    """(key, result or {"error": text}) in the order of `images`, whatever order they finish in."""
    from jaxphoton.image.decode import ImageError

    finished: dict[str, Record] = {}
    order = iter(images)
    due = next(order)
    try:
        for key, result, error in model.batch(task, images.items(), settings=settings, **arguments):
            if error is not None and not isinstance(error, (ImageError, OSError)):
                raise error
            finished[key] = result if error is None else {"error": str(error)}
            while due in finished:
                yield due, finished.pop(due)
                due = next(order, None)
    except (ValueError, RuntimeError) as error:  # not this image's fault: every other one would fail alike
        raise CommandError(str(error)) from error


def _failure(record: Record) -> str | None:
    return f"ERROR {record['error']}" if "error" in record else None


@contextlib.contextmanager
def _lines(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    try:
        file = path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n")
    except OSError as error:
        raise CommandError(f"--out {path}: {error.strerror}") from error
    with file:
        yield file


def _progress(total: int):
    from tqdm import tqdm

    return tqdm(total=total, unit="image", file=sys.stderr, disable=not sys.stderr.isatty())


def _write(file: TextIO, line: str) -> None:
    from tqdm import tqdm

    with tqdm.external_write_mode(file=file):  # keeps the bar off the line when both go to the terminal
        file.write(line + "\n")
        file.flush()
