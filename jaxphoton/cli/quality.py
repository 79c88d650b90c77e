"""`jaxphoton quality`: what weights in few bits cost, in answers."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jaxphoton.cli.base import OK, CommandError, add_model_options, number

if TYPE_CHECKING:
    from jaxphoton.measure.quality.forms import WeightForm
    from jaxphoton.measure.quality.run import Subject

DESCRIPTION = """\
Captions images with a model's weights in several forms, one after the other, and compares all with the first: logits,
tokens, whole captions. On scenes of coloured objects, which the packaged model knows, captions, boxes, points and
counts are scored too. Memory holds one form at a time."""
EPILOG = """\
forms:
  float32, bfloat16        plain numbers
  stored                   as the files have them
  int8, float8, int4, int4-64   as --quantize of other commands; with other kinds for some matrices (layers, experts,
                           head, vision): int4+head=none+vision=int4

examples:
  jaxphoton quality
  jaxphoton quality photos/ --model vikhyatk/moondream2 --quantize int8,int4
  jaxphoton quality --against float32 --quantize bfloat16,int8,int4 --shapes 200 --out quality.md
"""
SCENES = 64


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "quality", help="what weights in few bits cost, in answers", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("images", nargs="*", metavar="PATH", help="images or folders to caption (default: scenes)")
    parser.add_argument(
        "--against", type=_form, metavar="FORM", help="what all are compared with (default: plain, in the --dtype)"
    )
    parser.add_argument(
        "--quantize",
        type=_forms,
        default="int8,float8,int4,int4-64",
        metavar="FORM,FORM",
        help="forms to measure (default: int8,float8,int4,int4-64)",
    )
    parser.add_argument(
        "--shapes",
        type=number(int, 0),
        metavar="N",
        help=f"score on N scenes (default: {SCENES} with the packaged model and no PATH, else none)",
    )
    parser.add_argument("--max-tokens", type=number(int, 1), default=64, metavar="N", help="of a caption (default: 64)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table as markdown too")
    add_model_options(parser, quantize=False, mesh=False)


def run(args: argparse.Namespace) -> int:
    import jax

    from jaxphoton.measure.quality import table
    from jaxphoton.measure.quality.forms import parse_form
    from jaxphoton.measure.quality.run import compare_forms

    try:
        subject = _subject(args)
        against, reports = args.against or parse_form(subject.dtype), []
        for report in compare_forms(subject, against, args.quantize):
            print(f"{report.name}: done", file=sys.stderr)
            reports.append(report)
    except ValueError as error:  # of the model, its files or a picture
        raise CommandError(str(error)) from error
    count, kind = len(subject.pictures), jax.devices()[0].device_kind
    title = f"{args.model}: {count} pictures, in {subject.dtype} unless the form is a dtype, on {kind}"
    if args.out:
        try:
            args.out.write_text(table.markdown(title, reports), encoding="utf-8")
        except OSError as error:
            raise CommandError(f"--out {args.out}: {error.strerror or error}") from error
    if args.json:
        facts = {"model": args.model, "dtype": subject.dtype, "pictures": count, "scenes": subject.scenes}
        print(json.dumps({**facts, "forms": [report.as_json() for report in reports]}, indent=1))
        return OK
    print(f"{title}\n", *table.lines(reports), f"\n{table.legend(reports)}", sep="\n")
    return OK


def _subject(args: argparse.Namespace) -> Subject:
    """
    Raises:
      ValueError: there is no such model, or a picture that cannot be read.
    """
    import jax.numpy as jnp

    from jaxphoton import platform
    from jaxphoton.batch.sources import local_images
    from jaxphoton.image.decode import MAX_PIXELS
    from jaxphoton.image.prepare import prepare
    from jaxphoton.measure.quality.run import Subject, scenes
    from jaxphoton.weights import hub

    platform.use_compilation_cache()
    path = hub.resolve(args.model, args.revision)
    family = hub.check(path)
    own = args.model == hub.SHAPES and not args.images
    scored = args.shapes if args.shapes is not None else SCENES if own else 0
    if scored:  # on captions, boxes, points and counts
        for skill in ("detect", "point"):
            family.skills().form(skill, {"object": "circle"})
    sources = list(local_images(args.images).values()) if args.images else scenes(scored or SCENES)
    pictures = [prepare(each, family.pictures, max_pixels=args.max_pixels or MAX_PIXELS) for each in sources]
    dtype = args.dtype or jnp.dtype(platform.default_dtype(platform.find_device(None))).name
    return Subject(args.model, path, dtype, pictures, args.max_tokens, scored)


def _form(text: str) -> WeightForm:
    """An argparse type."""
    from jaxphoton.measure.quality.forms import parse_form

    try:
        return parse_form(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _forms(text: str) -> list[WeightForm]:
    names = text.split(",")
    if twice := [name for number, name in enumerate(names) if name in names[:number]]:
        raise argparse.ArgumentTypeError(f"the form {twice[0]} is named twice")
    return [_form(name) for name in names]
