"""`jaxphoton bench throughput`: requests a second, and how long they wait."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from itertools import cycle, islice, repeat
from typing import Any

from jaxphoton.cli.base import OK, SOME_FAILED, CommandError, CommandParser, add_model_options, number, numbers

DESCRIPTION = """\
Runs captions or questions through the whole engine: images a second, latencies, the queue, where the time goes. A load
is closed (--concurrency requests at any time) or open (--rate requests a second, whatever has become of the others;
--burst 200 alone: 200 at once). Programs are compiled and run before anything is measured."""
EPILOG = """\
presets, each at 1, 4, 16 and 64 requests at a time:
  direct     a question answered in at most 3 tokens
  reasoning  a question answered in at most 30 tokens
  caption    a description of at most 110 tokens
"""
# name -> (question, None for a caption; tokens at most)
PRESETS = {
    "direct": ("What is this?", 3),
    "reasoning": ("What is happening here, and why?", 30),
    "caption": (None, 110),
}
PRESET_CONCURRENCY = [1, 4, 16, 64]


def add_parser(kinds) -> None:
    parser: CommandParser = kinds.add_parser(
        "throughput", help="requests a second, and how long they wait", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("images", nargs="*", metavar="PATH", help="images or folders (default: synthetic ones)")
    parser.add_argument("--size", type=_size, default=(640, 480), metavar="WxH", help="of synthetic JPEGs (640x480)")
    parser.add_argument("--requests", type=number(int, 1), metavar="N", help="of each load (default: 64, or --burst)")
    parser.add_argument("--preset", choices=[*PRESETS, "all"], help="what is asked, how often at a time; see below")
    parser.add_argument("--question", help="ask this about every image instead of a caption")
    parser.add_argument("--max-tokens", type=number(int, 1), default=110, metavar="N", help="a request (default: 110)")
    parser.add_argument("--concurrency", type=numbers, metavar="N,N", help="closed loads (default: the engine's rows)")
    parser.add_argument(
        "--rate", type=number(float, 0, above=True), metavar="R", help="an open load: requests a second"
    )
    parser.add_argument("--burst", type=number(int, 1), metavar="K", help="open load: K requests together")
    parser.add_argument("--rows", type=number(int, 1), metavar="N", help="sequences decoded at once")
    parser.add_argument(
        "--max-waiting", type=number(int, 1), metavar="N", help="requests that may wait; more are refused"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    import jax

    from jaxphoton.measure.throughput import Load

    model, reports = _model(args), []
    with model:
        paths = _paths(args)
        for name, question, tokens in _tasks(args):
            load = Load(model, _ask(question, tokens))
            load.warm_up(_images(args, paths, 8, seed=1))
            for index, (title, start) in enumerate(_loads(args, model, load)):
                report = start(_images(args, paths, args.requests or args.burst or 64, seed=2 + index))
                if report.compiled:
                    raise CommandError(f"{report.compiled} programs were compiled in the measured phase: a fault")
                reports.append({"task": name, "load": title, **dataclasses.asdict(report)})
                print(f"{name}, {title}: done", file=sys.stderr)
    device = jax.devices()[0].device_kind
    if args.json:
        print(json.dumps({"model": args.model, "device": device, "loads": reports}))
    else:
        _print(args.model, device, reports)
    return SOME_FAILED if any(report["failed"] for report in reports) else OK


def _model(args: argparse.Namespace) -> Any:
    from jaxphoton.batch.model import load_model

    loading = {name: getattr(args, name) for name in ("revision", "dtype", "quantize", "max_pixels", "mesh")}
    model = load_model(args.model, **loading)
    if args.max_waiting:
        model.engine_config = dataclasses.replace(model.engine_config, max_waiting=args.max_waiting)
    if args.rows:
        model.engine_config = model.engine_config.with_rows(args.rows)
    return model


def _tasks(args: argparse.Namespace) -> list[tuple[str, str | None, int]]:
    if args.preset:
        names = list(PRESETS) if args.preset == "all" else [args.preset]
        return [(name, *PRESETS[name]) for name in names]
    return [("question" if args.question else "caption", args.question, args.max_tokens)]


def _ask(question: str | None, tokens: int):
    settings = {"temperature": 0.0, "max_tokens": tokens}
    if question is None:
        return lambda model, image: model.caption(image, settings=settings)
    return lambda model, image: model.query(image, question, settings=settings)


def _loads(args: argparse.Namespace, model: Any, load: Any):
    """(title, function of images) of every load asked for."""
    from jaxphoton.measure.throughput import bursts, poisson

    if args.rate is None and args.burst is None:
        default = PRESET_CONCURRENCY if args.preset else [model.engine_config.max_rows]
        for concurrency in args.concurrency or default:
            yield f"{concurrency} at a time", lambda images, n=concurrency: load.closed(images, n)
    elif args.rate is None:
        yield f"{args.burst} at once", lambda images: load.open(images, repeat(0.0))
    elif args.burst is None:
        yield f"{args.rate:g}/s", lambda images: load.open(images, poisson(args.rate))
    else:
        title = f"{args.rate:g}/s, {args.burst} together"
        yield title, lambda images: load.open(images, bursts(args.rate, args.burst))


def _paths(args: argparse.Namespace) -> list[Any]:
    from jaxphoton.batch.sources import local_images

    return list(local_images(args.images).values()) if args.images else []


def _images(args: argparse.Namespace, paths: list[Any], count: int, seed: int) -> list[Any]:
    """Images of one load: the paths given, over and over, or synthetic ones."""
    from jaxphoton.measure.throughput import synthetic_images

    return list(islice(cycle(paths), count)) if paths else list(synthetic_images(count, *args.size, seed=seed))


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if not found or "0" in found.groups():
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 640x480")
    return int(found[1]), int(found[2])


def _print(model: str, device: str, reports: list[dict[str, Any]]) -> None:
    print(f"{model} on {device}; milliseconds from submission, images decoded before it\n")
    heads = ("load", "images/s", "tokens/s", "tokens", "first token", "whole", "waiting", "refused")
    widths = (32, 9, 9, 7, 20, 20, 8, 8)
    print(" " * 58 + "  ".join(f"{'p50/p90/p99':>20}" for _ in range(2)))
    print(" ".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True)))
    for report in reports:
        cells = (
            f"{report['task']}, {report['load']}",
            f"{report['images_per_s']:.2f}",
            f"{report['tokens_per_s']:.1f}",
            f"{report['tokens_per_request']:.1f}",
            _latencies(report["first_token_ms"]),
            _latencies(report["total_ms"]),
            f"{report['queue_depth']['most']:.0f}",
            str(report["refused"]),
        )
        print(" ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))
    print("\nshare of the time with launches of this kind on the device; image decoding in seconds of a core")
    for report in reports:
        shares = ", ".join(f"{kind} {share:.0%}" for kind, share in report["shares"].items())
        print(f"{report['task']}, {report['load']}: {shares}; image decoding {report['image_decode_s']:.2f} s")
        if report["refused"] or report["failed"]:
            print(f"  {report['refused']} of {report['requests']} refused (queue full), {report['failed']} failed")


def _latencies(percentiles: dict[str, float]) -> str:
    return "/".join(f"{value:.0f}" for value in percentiles.values()) or "-"
