"""`jaxphoton plan`: memory of a model and a load, before anything is loaded."""

from __future__ import annotations

import argparse
import json
import re
from math import prod
from typing import Any

from jaxphoton.cli.base import OK, CommandError, add_adapter_room, check_drawing, mesh_text, number
from jaxphoton.config.mesh import mesh_shape
from jaxphoton.config.quantization import QUANTIZATIONS

DESCRIPTION = """\
Adds up the memory of a model and a load from its settings alone: weights, keys and values, row state, what the
programs need while they run, and what is left to the runtime. With a GPU or a size of memory: how many requests fit
there; without: the smallest GPU that holds the load, and how many requests fit GPUs of 8 to 141 GB with weights in
every form. With a mesh, everything is that of one of its devices, and a second table has other meshes."""
EPILOG = """\
examples:
  jaxphoton plan --model moondream2 --rows 32 --context 1024
  jaxphoton plan --model moondream2 --gpu L4 --plot plan.png
  jaxphoton plan --model moondream3 --quantize int4 --gpu L4 --adapter-slots 4
  jaxphoton plan --model moondream3 --mesh model=2 --memory 24GB
  jaxphoton plan --model checkpoints/mine --memory 24GiB --rows 64 --json
"""
UNITS = {"": 1, "B": 1} | {f"{p}B": 1000**n for n, p in enumerate("KMGT", 1)}
UNITS |= {f"{p}iB": 1024**n for n, p in enumerate("KMGT", 1)}


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "plan", help="memory of a model and a load, before loading", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument(
        "--model",
        default="moondream2",
        metavar="NAME",
        help="moondream2, moondream-0.5b, moondream3, joycaption-beta-one, smolvlm2-2.2b, smolvlm2-500m, smolvlm2-256m,"
        " shapes, or a checkpoint's folder (default: moondream2)",
    )
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16", help="(default: bfloat16)")
    parser.add_argument(
        "--kv-dtype", choices=["model", "float8"], default="model", help="of keys and values (default: the model's)"
    )
    parser.add_argument(
        "--quantize",
        choices=QUANTIZATIONS,
        help="weights in few bits; say so of a checkpoint that is small, too (default: none)",
    )
    add_mesh_option(parser)
    add_adapter_room(parser)
    parser.add_argument(
        "--rows", type=number(int, 1, 4096), metavar="N", help="requests at once (default: 32; with a GPU what fits)"
    )
    parser.add_argument(
        "--context",
        type=number(int, 1),
        metavar="N",
        help="positions of a request, its image's among them (default: all)",
    )
    device = parser.add_mutually_exclusive_group()
    device.add_argument(
        "--gpu", metavar="NAME", help="a GPU, with the memory of its datasheet: H100, L4, RTX 4090, ..."
    )
    device.add_argument("--memory", type=size, metavar="SIZE", help="a device of this memory, such as 24GiB")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the programs here and read what they need, instead of estimating (minutes, kept on disk)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--plot", metavar="FILE", help="draw the plan as a stacked bar (needs matplotlib)")


def run(args: argparse.Namespace) -> int:
    from jaxphoton.measure.memory_plan import usable_bytes

    if args.plot:
        check_drawing()
    try:
        report, plan, engine = _report(args)
        memory = report["memory_bytes"]
        usable = None if memory is None else usable_bytes(memory, engine)
        if args.plot:
            from jaxphoton.measure.plots import draw_plan

            draw_plan(plan, f"{args.model}, {report['max_rows']} requests", args.plot, memory, usable)
    except ValueError as error:
        raise CommandError(str(error)) from error
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        _show(report, plan)
    return OK


def _report(args: argparse.Namespace) -> tuple[dict[str, Any], Any, Any]:
    """The JSON object, the plan and its engine."""
    from jaxphoton.config import EngineConfig
    from jaxphoton.measure.chips import find_chip
    from jaxphoton.measure.cost_model import parameter_count, planned_family
    from jaxphoton.measure.memory_plan import usable_bytes

    family = planned_family(args.model)
    most = family.max_context
    context = most if args.context is None else args.context
    if context > most:
        raise CommandError(f"--context {context} is more than the model's {most} positions")
    chip = find_chip(args.gpu) if args.gpu else None
    memory = chip.memory if chip else args.memory
    planner = _planner(args, family)
    given = EngineConfig(adapter_slots=args.adapter_slots, adapter_rank=args.adapter_rank)
    rows = args.rows or (32 if memory is None else planner.most_rows(memory, context, given))
    engine = given.with_rows(rows)
    plan = planner.load(engine, context) if memory is None else planner.fit(engine, memory)
    smallest = planner.smallest(plan) if memory is None else None
    contexts = sorted({n for n in (context, 1024, 2048, most) if n <= most})
    requests = planner.requests(plan, engine, contexts)
    report = {
        "model": args.model,
        "parameters": parameter_count(family),
        "dtype": args.dtype,
        "quantize": args.quantize,
        "mesh": _shape(args),
        **_bytes(plan),
        "kv_bytes_per_position": planner.position_bytes,
        "kv_bytes_per_request": planner.pages_of(engine, context) * plan.page_bytes,
        "context": context,
        "max_rows": requests[context],
        "requests": {str(n): fit for n, fit in requests.items()},
        "gpu": chip.name if chip else None,
        "memory_bytes": memory,
        "reserve_bytes": None if memory is None else memory - usable_bytes(memory, engine),
        "smallest_gpu": smallest.name if smallest else None,
        **_fits(args, family, context, given),
    }
    return report, plan, engine


def _fits(args: argparse.Namespace, family: Any, context: int, engine: Any) -> dict[str, Any]:
    """What fits GPUs of several sizes, where none is given."""
    from jaxphoton.measure.memory_plan import planners_by_devices, planners_by_form, rows_that_fit

    found: dict[str, Any] = {"fits_gb": None, "fits_mesh": None}
    if args.gpu or args.memory:
        return found
    planners = planners_by_form(family, args.dtype, args.kv_dtype, _shape(args))
    found["fits_gb"] = rows_that_fit(planners, context, engine)
    if args.mesh:
        planners = planners_by_devices(family, args.dtype, args.kv_dtype, args.quantize)
        found["fits_mesh"] = rows_that_fit(planners, context, engine)
    return found


def _shape(args: argparse.Namespace) -> dict[str, int] | None:
    return mesh_shape(args.mesh) if args.mesh else None


def _bytes(plan: Any) -> dict[str, Any]:
    return {
        "weights_bytes": plan.weights_bytes,
        "weights": dict(plan.weights),
        "pages": plan.pages,
        "page_bytes": plan.page_bytes,
        "kv_bytes": plan.kv_bytes,
        "row_state_bytes": plan.row_state_bytes,
        "temporaries_bytes": plan.temporaries_bytes,
        "temporaries": plan.temporaries,
        "activation_bytes": plan.activation_bytes,
        "activations": plan.activations,
        "scratch_source": plan.source,
        "total_bytes": plan.total_bytes,
    }


def _planner(args: argparse.Namespace, family: Any):
    from jaxphoton.measure.memory_plan import Planner

    if not args.compile:
        return Planner(family, args.dtype, kv_dtype=args.kv_dtype, quantize=args.quantize, mesh=_shape(args))
    if args.mesh:
        raise CommandError("--compile compiles for one device: give it without --mesh")
    from jaxphoton.measure.compiled import compiled_scratch
    from jaxphoton.platform import find_device

    def scratch(engine):
        return compiled_scratch(family, args.dtype, engine, args.quantize)

    source = f"compiled for {find_device(None).device_kind}"
    return Planner(family, args.dtype, scratch, source, args.kv_dtype, args.quantize)


def _show(report: dict[str, Any], plan: Any) -> None:
    from jaxphoton.engine.memory import human

    numbers = f"{report['dtype']}, matrices {report['quantize']}" if report["quantize"] else report["dtype"]
    print(f"{report['model']}: {report['parameters']:,} parameters in {numbers}; nothing was loaded\n")
    if report["mesh"]:
        devices = prod(size for name, size in report["mesh"].items() if name != "data")
        print(f"on each of the {devices} devices that share the model:")
    for line in plan.lines():
        print(line)
    per_request = f"{human(report['kv_bytes_per_request'])} a request of {report['context']} positions"
    print(f"\nkeys and values: {human(report['kv_bytes_per_position'])} a position, {per_request}")
    if report["memory_bytes"] is None:
        print(f"smallest GPU that holds this: {report['smallest_gpu'] or 'none in the table'}")
        requests = f"\nrequests at once of {report['context']} positions, by a GPU's memory and"
        print(f"{requests} the form of the weights")
        _show_fits(report["fits_gb"])
        if report["fits_mesh"]:
            print(f"{requests} how many share the model, in {numbers}")
            _show_fits(report["fits_mesh"])
        return
    device = f"{report['gpu'] or 'the device'}: {human(report['memory_bytes'])}"
    print(f"{device}, of which {human(report['reserve_bytes'])} are left to the runtime")
    for context, fit in report["requests"].items():
        print(f"{fit:>6} requests at once of {context} positions")


def _show_fits(fits: dict[int, dict[str, int]]) -> None:
    names = list(next(iter(fits.values())))
    print("".join([f"{'':>7}", *(f"{name:>10}" for name in names)]))
    for gigabytes, rows in fits.items():
        print("".join([f"{gigabytes:>4} GB", *(f"{rows[name] or '-':>10}" for name in names)]))


def add_mesh_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mesh", type=mesh_text, metavar="AXIS=N,...", help="devices that share the model: model=2, expert=4, or both"
    )


def size(text: str) -> int:
    """Bytes of `24GiB`, `80GB`, `512 MiB` or a plain number."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if not match or match[2] not in UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 24GiB or 80GB")
    return int(float(match[1]) * UNITS[match[2]])
