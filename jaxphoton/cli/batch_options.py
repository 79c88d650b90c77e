"""Options of the commands that ask about images."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from jaxphoton.batch.options import EXISTING, FORMS, IMAGE_SUFFIX, MOST_RETRIES
from jaxphoton.cli.base import (
    CommandError,
    CommandParser,
    add_adapter_option,
    add_model_options,
    add_sampling_options,
    asked,
    number,
    read_text,
)
from jaxphoton.image.ways import RESIZES

COLOURS = {"white": (255, 255, 255), "black": (0, 0, 0), "grey": (128, 128, 128)}

BATCH_HELP = """\
input:
  An image, a folder (with its subfolders and links to folders; without hidden files and the thumbnails of network
  storages), a glob, a list of images (.txt, one a line; .jsonl and .parquet with columns), webdataset shards (.tar,
  .tar.gz, shards-{000..099}.tar), an address of any of these (s3://, gs://, https://), or hf://datasets/USER/NAME.
  What was passed over is counted at the end. Where several inputs have images of one name, the names of the folders
  are put before all of them.

output:
  Without --out, or with -, one JSON object a line, in the order of the images. With --out, by its suffix: .jsonl,
  .parquet, .json (COCO boxes), .tar, a pattern like out-%05d.tar (webdataset: a tar for each that was read, with its
  other members; other images are packed), or a folder (a text file an image; any name with a / at its end).
  While it runs, everything goes to the journal OUT.journal, from which OUT is made at the end. Shards may share a
  folder or a pattern, and have journals of their own; a file is for one shard.
  Give the same command again to go on after an interruption: what the journal has is not done again.
  Images that fail are listed in OUT.failures.jsonl, the others go on, and the exit code is 2.
  Ctrl-C finishes what is under way; a second one stops at once, and loses no finished image either.
"""


def add_batch_options(parser: CommandParser, *, objects: bool = False, writes: bool = False) -> None:
    """Everything but what is asked.

    Args:
      objects: the command finds objects.
      writes: it writes texts for people.
    """
    parser.add_argument("input", nargs="+", metavar="INPUT", help="images, see below")
    parser.add_argument("--out", metavar="OUT", help="where the results go, see below (default: JSON lines to stdout)")
    _add_selection(parser)
    _add_output(parser)
    add_picture_options(parser)
    _add_run(parser)
    add_adapter_option(add_model_options(parser), "every image is asked with it")
    generation = add_sampling_options(parser, objects=objects)
    if writes:
        generation.add_argument(
            "--retry-loops",
            type=number(int, 0, MOST_RETRIES),
            default=0,
            metavar="N",
            help="ask up to N times again, from another seed, where a text repeats itself (default: 0)",
        )
    _add_recording(parser)


def _add_selection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which images")
    group.add_argument("--limit", type=number(int, 1), metavar="N", help="the first N images")
    group.add_argument("--shard", metavar="I/N", help="part I (from 0) of N; together the parts are the whole")
    group.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="GLOB",
        help="leave out files and folders of this name ('*_mask.png', raw), or with a / this path; may be repeated",
    )
    group.add_argument("--dedupe", choices=["none", "sha256"], default="none", help="ask about equal files once")
    group.add_argument("--image-column", metavar="NAME", help="the column, or in a tar the extension, of the image")
    group.add_argument("--key-column", metavar="NAME", help="the column that names an entry")
    group.add_argument("--root", metavar="DIR", help="where relative paths in a list or table start from")
    group.add_argument(
        "--timeout",
        type=number(float, 0, above=True),
        default=30.0,
        metavar="S",
        help="seconds after which an address counts as failed (default: 30)",
    )
    group.add_argument(
        "--retries",
        type=number(int, 0),
        default=3,
        metavar="N",
        help="tries again of an address whose server is overloaded or whose connection breaks (default: 3)",
    )
    group.add_argument("--retry-failed", action="store_true", help="try the images again that failed before")


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    add_export_options(group)
    group.add_argument("--journal", type=Path, metavar="FILE", help="the journal (default: OUT.journal)")
    group.add_argument("--allow-changes", action="store_true", help="go on though options differ from the journal's")
    group.add_argument("--restart", action="store_true", help="throw the journal away and begin again")
    group.add_argument("--report", type=Path, metavar="FILE", help="write a page to look at: report.html")
    group.add_argument("--quiet", action="store_true", help="with --out, print no line for each image")


def add_export_options(group: argparse._ArgumentGroup) -> None:
    """The form of the output, and what happens to texts that are there already."""
    group.add_argument("--form", choices=FORMS, help="the form of the output, if its suffix does not say it")
    group.add_argument(
        "--existing",
        choices=EXISTING,
        default="skip",
        help="what to do with a text file, or a text in a tar, that is there already; with skip its image is not even "
        "asked about (default: skip)",
    )
    group.add_argument(
        "--extension", default=".txt", metavar=".EXT", help="of text files: .txt, .caption, or .json (default: .txt)"
    )
    group.add_argument(
        "--image-suffix",
        choices=IMAGE_SUFFIX,
        default="keep",
        help="of images that are packed into a .tar: theirs, or jpg for all, for Hugging Face datasets, which reads "
        "those of the first five only; other forms become JPEGs (default: keep)",
    )


def add_picture_options(parser: argparse.ArgumentParser) -> None:
    """How pictures are read."""
    group = parser.add_argument_group("pictures")
    group.add_argument(
        "--alpha-background",
        type=colour,
        default=COLOURS["white"],
        metavar="COLOUR",
        help="behind transparent pixels: white, black, grey or #rrggbb (default: white)",
    )
    group.add_argument("--allow-truncated", action="store_true", help="use what a file cut short still shows")
    group.add_argument("--fast-decode", action="store_true", help="read large JPEGs at a reduced size")
    group.add_argument(
        "--resize",
        choices=RESIZES,
        help="exact: by Pillow; fast: in a sixth to a ninth of its time, at most 2 levels away (default: as in the "
        "journal that goes on, else fast)",
    )
    group.add_argument("--workers", type=number(int, 0), metavar="N", help="processes that decode pictures")
    group.add_argument(
        "--image-timeout",
        type=number(float, 0, above=True),
        metavar="S",
        help="seconds that decoding a picture may take; then another process tries, once (default: 60)",
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the run")
    add_engine_options(group)
    add_process_options(group)
    group.add_argument(
        "--gpu-hour-price", type=number(float, 0), metavar="PRICE", help="tell what a million images would cost"
    )
    group.add_argument("--dry-run", action="store_true", help="count, read headers, plan the memory; ask nothing")
    group.add_argument(
        "--rate", type=number(float, 0, above=True), metavar="R", help="images a second, for the time of a --dry-run"
    )


def add_engine_options(group: argparse._ArgumentGroup) -> None:
    """How the engine runs, and how many of them."""
    group.add_argument(
        "--deterministic",
        action="store_true",
        help="the same result to the last bit in any order, sharding and company; slower",
    )
    group.add_argument("--rows", type=number(int, 1), metavar="N", help="answers decoded at once (default: what fits)")
    group.add_argument(
        "--replicas",
        type=replicas,
        default=1,
        metavar="N",
        help="engine processes, each with a GPU of its own, or those of --mesh; auto for as many as visible GPUs are "
        "enough for (default: 1)",
    )
    group.add_argument(
        "--executables", metavar="DIR", help="programs that `jaxphoton compile` has stored, instead of compiling"
    )


def add_process_options(group: argparse._ArgumentGroup) -> None:
    """Which of several processes this is that share one model."""
    group.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="one --mesh over several machines: the same command runs on each, and finds process 0 here; auto: as "
        "Slurm or Open MPI have started them",
    )
    group.add_argument("--processes", type=number(int, 2), metavar="N", help="how many those are")
    group.add_argument(
        "--process", type=number(int, 0), metavar="I", help="which this is; 0 reads and writes, the others help it"
    )


def _add_recording(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("looking at a run")
    group.add_argument(
        "--depth", type=int, choices=[1, 2], help="launches under way at once: 1 blocks, 2 pipelines (default: 2)"
    )
    group.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="write a timeline for ui.perfetto.dev and `jaxphoton timeline`; of a long run its last 20,000 launches",
    )
    group.add_argument(
        "--jax-profile",
        type=Path,
        metavar="DIR",
        help="write a profile of jax.profiler, CUDA graphs kept on; for runs of seconds",
    )


def replicas(text: str) -> int | None:
    """An argparse type: a number, or `auto` for None."""
    return None if text == "auto" else number(int, 1)(text)


def colour(text: str) -> tuple[int, int, int]:
    """An argparse type: a name of COLOURS or #rrggbb."""
    if text in COLOURS:
        return COLOURS[text]
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(COLOURS)}, and not of the form #rrggbb")
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue


def text_of(text: str | None, file: Path | None) -> str | None:
    """A prompt given as it is, or in a file.

    Raises:
      CommandError: the file cannot be read, or there is nothing in it.
    """
    if file is None:
        return text
    try:
        return asked(read_text(file, "--prompt-file").strip())
    except argparse.ArgumentTypeError as error:
        raise CommandError(f"--prompt-file {file}: {error}") from error
