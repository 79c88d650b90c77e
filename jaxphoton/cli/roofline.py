"""`jaxphoton roofline`: floors of a model's parts on a GPU, and what batching buys."""

from __future__ import annotations

import argparse
import json
from typing import Any

from jaxphoton.cli.base import OK, CommandError, number, numbers
from jaxphoton.cli.plan import add_mesh_option
from jaxphoton.cli.roofline_mesh import show_mesh
from jaxphoton.config.mesh import mesh_shape
from jaxphoton.config.quantization import QUANTIZATIONS

DESCRIPTION = """\
Bytes, operations and the floor in time of encoding an image, its prefix, a question and decode steps, from a model's
settings and a GPU's figures: which resource binds each, what batching buys, and what weights in few bits. With a
mesh, what GPUs that share the model take, what they tell each other, and what as many replicas take. With a benchmark
of scripts/gpu_check.py, on the figures measured there, and how far the measured steps are from their floors."""
EPILOG = """\
examples:
  jaxphoton roofline --model moondream2 --gpu H100
  jaxphoton roofline --model moondream3 --gpu H200 --mesh model=2
  jaxphoton roofline --model moondream2 --measured results/gpu_check.json --plot roofline.png
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "roofline", help="floors of a model on a GPU, and batch economics", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument(
        "--model",
        default="moondream2",
        metavar="NAME",
        help="moondream2, moondream-0.5b, moondream3, joycaption-beta-one, smolvlm2-2.2b, smolvlm2-500m, smolvlm2-256m,"
        " shapes, or a checkpoint's folder (default: moondream2)",
    )
    device = parser.add_mutually_exclusive_group(required=True)
    device.add_argument(
        "--gpu", metavar="NAME", help="a GPU, with the figures of its datasheet: H100, L4, RTX 4090, ..."
    )
    device.add_argument("--measured", metavar="FILE", help="a gpu_check.json, with the figures measured there")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16", help="(default: bfloat16)")
    parser.add_argument(
        "--quantize",
        choices=QUANTIZATIONS,
        help="weights in few bits; say so of a checkpoint that is small, too (default: none)",
    )
    add_mesh_option(parser)
    parser.add_argument(
        "--rows", type=numbers, default=[1, 8, 32], metavar="N,N", help="of the steps (default: 1,8,32)"
    )
    parser.add_argument(
        "--context", type=number(int, 1), default=850, metavar="N", help="positions a row attends to (default: 850)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--plot", metavar="FILE", help="draw the roofline and the batches (needs matplotlib)")


def run(args: argparse.Namespace) -> int:
    from jaxphoton.measure import roofline
    from jaxphoton.measure.chips import find_chip, read_benchmark
    from jaxphoton.measure.cost_model import parameter_count, planned_family

    try:
        family = planned_family(args.model)
        benchmark = read_benchmark(args.measured) if args.measured else None
        chip = benchmark.chip if benchmark else find_chip(args.gpu)
        parts = roofline.floors(family, chip, args.dtype, args.rows, args.context, args.quantize)
        steps = roofline.batches(family, chip, args.dtype, args.context, quantize=args.quantize)
        knee = roofline.knee(family, chip, args.dtype, args.context, args.quantize)
        forms = roofline.forms(family, chip, args.dtype, args.context, args.rows)
        same = benchmark is not None and benchmark.parameters == parameter_count(family)
        measured = roofline.compare(family, args.dtype, benchmark, args.quantize) if benchmark and same else []
        mesh = _mesh(args, family, chip) if args.mesh else None
        if args.plot:
            title = f"{args.model}, {args.context} positions a row"
            from jaxphoton.measure.plots import draw_roofline

            draw_roofline(title, chip, args.dtype, parts, steps, knee, measured, args.plot)
    except ValueError as error:
        raise CommandError(str(error)) from error
    report = {
        "model": args.model,
        "parameters": parameter_count(family),
        "dtype": args.dtype,
        "quantize": args.quantize,
        "context": args.context,
        "gpu": {
            "name": chip.name,
            "source": chip.source,
            "gb_s": chip.bandwidth / 1e9,
            "tflop_s": chip.rate(args.dtype) / 1e12,
        },
        "parts": [part.as_json() for part in parts],
        "batches": [step.as_json() for step in steps],
        "forms": [form.as_json() for form in forms],
        "knee": {"kv_over_weights": knee.kv_over_weights, "compute_over_bytes": knee.compute_over_bytes},
        "measured": [step.as_json() for step in measured],
        "mesh": mesh,
    }
    if args.json:
        print(json.dumps(report, indent=1))
        return OK
    _show(report)
    if benchmark and not measured:
        found = f"a model of {benchmark.parameters:,} parameters" if benchmark.parameters else "no model"
        print(f"\nnothing to compare: {args.measured} has measured {found}")
    return OK


def _mesh(args: argparse.Namespace, family: Any, chip: Any) -> dict[str, Any]:
    from jaxphoton.measure.mesh_roofline import links_of, shared_parts

    parts = shared_parts(family, chip, args.dtype, mesh_shape(args.mesh), args.rows, args.context, args.quantize)
    links = links_of(chip)
    return {"shape": args.mesh, "devices": parts[0].devices, "parts": [part.as_json(links) for part in parts]}


def _show(report: dict[str, Any]) -> None:
    gpu = report["gpu"]
    numbers = f"{report['dtype']}, matrices {report['quantize']}" if report["quantize"] else report["dtype"]
    print(f"{report['model']}: {report['parameters']:,} parameters in {numbers}")
    print(f"{gpu['name']} ({gpu['source']}): {gpu['gb_s']:.0f} GB/s, {gpu['tflop_s']:.0f} TFLOP/s\n")
    print(f"{'':<16} {'MB':>9} {'GFLOP':>9} {'FLOP/byte':>10} {'floor ms':>9}  bound by")
    for part in report["parts"]:
        figures = f"{part['bytes'] / 1e6:9.1f} {part['flops'] / 1e9:9.1f} {part['intensity']:10.1f}"
        print(f"{part['part']:<16} {figures} {part['floor_ms']:9.3f}  {part['bound']}")
    if any(part["part"].startswith("boxes") for part in report["parts"]):
        print("boxes N: a step in which some row reads a coordinate or a size")
    print(f"\nsteps of texts at {report['context']} positions a row, at the floor")
    print(f"{'rows':>5} {'ms/token':>9} {'tokens/s':>9}  bound by")
    for step in report["batches"]:
        print(f"{step['rows']:>5} {step['ms_per_token']:9.3f} {step['tokens_per_s']:9.0f}  {step['bound']}")
    _show_knee(report["knee"])
    _show_forms(report["forms"])
    if report["mesh"]:
        show_mesh(report)
    if report["measured"]:
        print("\nmeasured; a tick is a pipelined step with all that the host does")
        print(f"{'':<16} {'ms':>9} {'floor ms':>9}  times floor")
    for part in report["measured"]:
        print(f"{part['part']:<16} {part['measured_ms']:9.3f} {part['floor_ms']:9.3f} {part['times_floor']:12.2f}")


def _show_forms(forms: list[dict[str, Any]]) -> None:
    print("\nsteps of texts by the form of the weights, ms at the floor")
    rows = forms[0]["floor_ms"]
    print("".join([f"{'':<10} {'MB read':>9}", *(f"{f'rows {n}':>10}" for n in rows)]))
    for form in forms:
        times = (f"{ms:10.3f}" for ms in form["floor_ms"].values())
        print("".join([f"{form['form']:<10} {form['weight_bytes'] / 1e6:9.1f}", *times]))


def _show_knee(knee: dict[str, int | None]) -> None:
    kv, compute = knee["kv_over_weights"], knee["compute_over_bytes"]
    print(
        f"keys and values outweigh the weights from {kv} rows on" if kv else "weights always outweigh keys and values"
    )
    print(f"compute binds from {compute} rows on" if compute else "bandwidth binds at any number of rows")
