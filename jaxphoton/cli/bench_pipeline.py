"""`jaxphoton bench pipeline`: blocking against pipelined decoding."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

from jaxphoton.cli.base import OK, CommandError, CommandParser, add_model_options, check_drawing, number, numbers

DESCRIPTION = """\
Decodes the same requests at depth 1 (blocking) and depth 2 (pipelined), in turns, and compares the speed-up with what
the parts of a step predict. Device times are of steps enqueued back to back on the device alone; idle is the pipelined
period less that. On a CPU, host and device compete for cores: the host gets one core to itself and the device the rest
(--no-pin leaves them alone)."""


def add_parser(kinds) -> None:
    parser: CommandParser = kinds.add_parser(
        "pipeline", help="blocking against pipelined decoding", description=DESCRIPTION
    )
    parser.add_argument(
        "--streams", type=numbers, default=[1, 8, 32], metavar="N,N", help="requests at once (default: 1,8,32)"
    )
    parser.add_argument(
        "--tokens", type=number(int, 2, 200), default=64, metavar="N", help="tokens of a request (default: 64)"
    )
    parser.add_argument(
        "--context", type=number(int, 8), metavar="N", help="positions of a request at its end (default: 850 or less)"
    )
    parser.add_argument(
        "--rounds", type=number(int, 1, 100), default=11, metavar="N", help="of each kind (default: 11)"
    )
    parser.add_argument(
        "--host-work-ms",
        type=number(float, 0, 1000),
        default=0.0,
        metavar="MS",
        help="bookkeeping that holds the interpreter after each step, to show the effect where the device is slow",
    )
    parser.add_argument(
        "--delivery",
        choices=["copy", "callback"],
        default="copy",
        help="how tokens of the pipelined runs reach the host: copied, or by a callback inside the step (slow)",
    )
    parser.add_argument("--no-pin", action="store_true", help="leave the placing of threads to the system")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--plot", metavar="FILE", help="draw a picture (needs matplotlib)")
    add_model_options(parser, mesh=False)


def run(args: argparse.Namespace) -> int:
    from jaxphoton.measure.timing import Pinning

    if args.plot:
        check_drawing()
    pinning = Pinning()
    if not args.no_pin:
        pinning.keep_host_core_free()
    report, streams = _measure(args, pinning)
    if args.json:
        print(json.dumps({**report, "streams": [dataclasses.asdict(stream) for stream in streams]}))
    else:
        _print(report, streams)
    if args.plot:
        from jaxphoton.measure.plots import PlotError, draw_pipeline

        try:
            draw_pipeline(streams, f"{report['model']} on {report['device']}", args.plot)
        except PlotError as error:
            raise CommandError(str(error)) from error
    return OK


def _measure(args: argparse.Namespace, pinning: Any) -> tuple[dict[str, Any], list[Any]]:
    import jax

    from jaxphoton import platform
    from jaxphoton.batch.model import load_model
    from jaxphoton.measure.cost_model import parameter_count, step_cost
    from jaxphoton.measure.decoding import DecodeBench, compile_programs
    from jaxphoton.measure.pipeline_bench import measure_stream
    from jaxphoton.measure.timing import copy_bandwidth

    loading = {name: getattr(args, name) for name in ("revision", "dtype", "quantize", "max_pixels")}
    model = load_model(args.model, **loading)
    family, params = model.family, model.params
    context = args.context or min(850, family.max_context - 8)
    if not args.tokens + 2 < context <= family.max_context - 8:
        raise CommandError(f"--context must lie between tokens + 2 and {family.max_context - 8} for this model")
    benches = {}
    for rows in args.streams:
        print(f"compiling for {rows} streams", file=sys.stderr)
        programs = compile_programs(params, family, rows, args.tokens, context)
        benches[rows] = DecodeBench(programs, rows, args.tokens, context, args.host_work_ms / 1e3)
    here = jax.devices()[0]
    pinned = not args.no_pin and here.platform == "cpu" and pinning.take_host_core()
    if here.platform != "cpu":
        pinning.release()
    dtype = str(family.network.dtype(params))
    floors = {rows: step_cost(family, dtype, rows, context, readout=False).bytes for rows in args.streams}
    bandwidth = copy_bandwidth()
    report = {
        "model": args.model,
        "parameters": parameter_count(family),
        "bytes_per_step": floors[args.streams[0]],
        "floor_ms": {rows: 1e3 * size / bandwidth for rows, size in floors.items()},
        "copy_gb_s": bandwidth / 1e9,
        "device": here.device_kind,
        "host": _host(here.platform, pinned),
        "context": context,
        "host_work_ms": args.host_work_ms,
        "delivery": args.delivery,
    }
    with platform.calmed_interpreter():
        return report, [measure_stream(bench, args.rounds, args.delivery == "callback") for bench in benches.values()]


def _host(platform: str, pinned: bool) -> str:
    if platform != "cpu":
        return "the device computes beside the host"
    if pinned:
        return "host and device are the same processor: the host has one core, the device's threads the others"
    return "host and device share cores: what the host gains the device loses"


def _print(report: dict[str, Any], streams: list[Any]) -> None:
    from jaxphoton.measure.pipeline_bench import table

    print(f"{report['model']}: {report['parameters'] / 1e6:.2f} M parameters, {report['device']}; {report['host']}")
    print(f"medians over all steps, [quartiles]; {report['context']} positions a row; tokens by {report['delivery']}")
    if report["host_work_ms"]:
        print(f"with {report['host_work_ms']:g} ms of synthetic host work a step")
    floors = ", ".join(f"{floor:.3f} ms at {rows}" for rows, floor in report["floor_ms"].items())
    size = report["bytes_per_step"] / 1e6
    print(f"floor of a step: {size:.1f} MB at {streams[0].rows} over {report['copy_gb_s']:.1f} GB/s copied: {floors}\n")
    print("\n".join(table(streams)))
