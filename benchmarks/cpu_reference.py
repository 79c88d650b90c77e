"""Captions on a CPU beside a PyTorch implementation that you point to:

    python benchmarks/cpu_reference.py --model FOLDER --reference MODULE:FUNCTION photo.jpg ...

jaxphoton holds no other implementation: yours is called as FUNCTION(folder, image paths, tokens) and returns a function
without arguments, which captions the images greedily with at most so many tokens and returns their ids, a list an
image. Loading is not measured, the returned function is. MODULE is found from the current folder and PYTHONPATH.
--reference-python names another interpreter to run it with. Each side runs in a process of its own. What is printed is
processor seconds an image (user and system, all threads), which other work on the machine hardly changes, the ratio,
and how many images got the same ids. --against FOLDER measures another checkout of jaxphoton too. --model may be the
name of settings that jaxphoton has (moondream-0.5b): both sides get the same random weights.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
Ids = list[list[int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="files, no two alike")
    parser.add_argument("--model", required=True, metavar="FOLDER", help="a checkpoint, or a name: of random weights")
    parser.add_argument("--reference", metavar="MODULE:FUNCTION", help="the other implementation")
    parser.add_argument("--reference-python", default=sys.executable, metavar="PATH", help="its Python")
    parser.add_argument("--against", metavar="FOLDER", help="another checkout of jaxphoton")
    parser.add_argument("--tokens", type=int, default=50, metavar="N", help="of a caption at most (default: 50)")
    parser.add_argument("--rows", type=_numbers, default=[1, 8], metavar="N,N", help="captions at once (default: 1,8)")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(_measured(args)))
        return
    sides: list[tuple[str, str, str | Path, str]] = [
        (f"jaxphoton, {rows} at once", sys.executable, ROOT, str(rows)) for rows in args.rows
    ]
    if args.against:
        sides += [(f"{args.against}, {rows} at once", sys.executable, args.against, str(rows)) for rows in args.rows]
    if args.reference:
        sides.append((args.reference, args.reference_python, os.getcwd(), args.reference))
    with _checkpoint(args.model) as folder:
        found = [(name, _child(python, path, side, folder)) for name, python, path, side in sides]
    _report(found, len(args.images))


@contextmanager
def _checkpoint(model: str) -> Iterator[str]:
    """The folder of a checkpoint that is there, or of one of random weights until the end of the block."""
    if os.path.lexists(model):
        yield model
        return
    from cold_start import make_checkpoint  # beside this file; sides that only measure need none of its imports

    with tempfile.TemporaryDirectory() as scratch:
        try:
            make_checkpoint(Path(scratch, "model"), model)
        except ValueError as error:
            sys.exit(f"--model {model}: no such folder, and {error}")
        yield os.path.join(scratch, "model")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _report(found: list[tuple[str, dict[str, Any]]], images: int) -> None:
    last, first = found[-1][1], found[0][1]
    print(f"{'':<40} {'CPU s an image':>15} {'ratio':>7} {'same ids':>9}")
    for name, one in found:
        same = sum(a == b for a, b in zip(one["ids"], first["ids"], strict=True))
        ratio = last["seconds"] / one["seconds"]
        print(f"{name:<40} {one['seconds'] / images:15.2f} {ratio:7.2f} {same:>4} of {images}")


def _child(python: str, path: str | Path, side: str, folder: str) -> dict[str, Any]:
    """What a side has spent, measured in a process that imports from `path` first."""
    places = [str(path), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places), "JAX_PLATFORMS": "cpu"}
    command = [python, __file__, *sys.argv[1:], "--side", side, "--model", folder]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{side} failed; see above")
    return json.loads(done.stdout.splitlines()[-1])


def _measured(args: argparse.Namespace) -> dict[str, Any]:
    if ":" in args.side:
        module, _, name = args.side.partition(":")
        run = getattr(importlib.import_module(module), name)(args.model, args.images, args.tokens)
    else:
        run = _ours(args.model, args.images, args.tokens, int(args.side))
    before = _spent()
    ids = [list(map(int, one)) for one in run()]
    if len(ids) != len(args.images):
        sys.exit(f"{args.side} returned {len(ids)} captions of {len(args.images)} images")
    return {"seconds": _spent() - before, "ids": ids}


def _ours(folder: str, images: list[str], tokens: int, rows: int) -> Callable[[], Ids]:
    from PIL import Image

    from jaxphoton import Moondream

    model = Moondream.from_pretrained(folder, dtype="float32", device="cpu")
    settings = {"temperature": 0.0, "max_tokens": tokens}
    # Compiles everything; a picture that is not among those measured, whose prefix would be kept.
    model.caption(Image.new("RGB", (64, 64)), settings={**settings, "max_tokens": 2})

    def run() -> Ids:
        with ThreadPoolExecutor(rows) as threads:
            return [
                result.tokens for result in threads.map(lambda path: model.caption(path, settings=settings), images)
            ]

    return run


def _spent() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


if __name__ == "__main__":
    main()
