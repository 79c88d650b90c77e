"""Compare what a picture costs with another revision: python scripts/image_bench.py --against REV [--turns N].

Processor milliseconds (user and system) from a file to crops with their digest, with Moondream 2's settings, in a
process with the environment of an image worker. The other revision is unpacked to a temporary folder; it runs with the
packages of this environment. Both see the same files, in turns of several; medians of the turns, and the ratio of this
to the other. Smooth pictures are those of `jaxphoton bench`; grainy ones are as hard to decode as photos of a camera.
"""

from __future__ import annotations

import argparse
import inspect
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
SIZES = ((640, 480), (1280, 960), (4000, 3000))
A_TURN = 5  # pictures: a worker does one after the other
FORMATS = {"jpeg": {"quality": 90}, "png": {}, "webp": {"quality": 85}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="REV", help="a revision of this repository (default: this one alone)")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--resize", choices=["exact", "fast"], default="fast", help="of this revision")
    parser.add_argument("--child", metavar="RESIZE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        measure(args.child)
        return
    with tempfile.TemporaryDirectory() as place:
        trees = {"this": ROOT}
        if args.against:
            trees["other"] = unpacked(args.against, Path(place, "other"))
        children = {name: child(tree, args.resize) for name, tree in trees.items()}
        try:
            for form in args.formats:
                for grainy in (False, True):
                    for width, height in SIZES:
                        file = Path(place, f"picture.{form}")
                        picture(width, height, grainy).save(file, form, **FORMATS[form])
                        kind = f"{form:<4} {'grainy' if grainy else 'smooth'} {width}x{height}"
                        report(kind, children, file, args.turns)
        finally:
            for process in children.values():
                process.communicate()


def unpacked(revision: str, folder: Path) -> Path:
    folder.mkdir()
    archive = subprocess.run(["git", "-C", ROOT, "archive", revision, "jaxphoton"], stdout=subprocess.PIPE, check=True)
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder


def child(tree: Path, resize: str) -> subprocess.Popen:
    from jaxphoton.image.pool import VARIABLES  # not for the child: its own may have another name

    command = [sys.executable, __file__, "--child", resize]
    environment = os.environ | VARIABLES | {"PYTHONPATH": str(tree)}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def picture(width: int, height: int, grainy: bool) -> Image.Image:
    random = np.random.default_rng(0)
    small = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
    smooth = small.resize((width, height), Image.Resampling.BICUBIC)
    if not grainy:
        return smooth
    grain = random.normal(0, 6, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8))


def report(kind: str, children: dict[str, subprocess.Popen], file: Path, turns: int) -> None:
    taken = {name: [] for name in children}
    for turn in range(turns + 1):
        for name, process in children.items():
            assert process.stdin and process.stdout
            process.stdin.write(f"{file}\n")
            process.stdin.flush()
            spent = json.loads(process.stdout.readline())
            if turn:  # the first has touched the memory
                taken[name].append(spent)
    middle = {name: statistics.median(spent) for name, spent in taken.items()}
    ratio = (
        f", other {middle['other']:7.1f} ms, ratio {middle['this'] / middle['other']:.2f}" if "other" in middle else ""
    )
    print(f"{kind:<24} this {middle['this']:6.1f} ms{ratio}", flush=True)


def measure(resize: str) -> None:
    """Answers every line, a file, with the processor milliseconds of preparing it."""
    from jaxphoton.image.prepare import prepare

    try:
        from jaxphoton.models.moondream.config import VisionConfig
        from jaxphoton.models.moondream.pictures import MoondreamPictures

        pictures: Any = MoondreamPictures(VisionConfig())
    except ImportError:  # before families
        from jaxphoton import config

        pictures = vars(config)["VisionConfig"]()
    options: dict[str, Any] = {"resize": resize} if "resize" in inspect.signature(prepare).parameters else {}
    for line in sys.stdin:
        data = Path(line.strip()).read_bytes()
        before = spent_s()
        for _ in range(A_TURN):
            prepare(io.BytesIO(data), pictures, **options)
        print(json.dumps(1e3 * (spent_s() - before) / A_TURN), flush=True)


def spent_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
