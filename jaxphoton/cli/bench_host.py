"""`jaxphoton bench host`: what a tick of the engine costs the host."""

from __future__ import annotations

import dataclasses
import json
import sys
from contextlib import nullcontext

from jaxphoton.cli.base import OK, CommandError, CommandParser, number, numbers

DESCRIPTION = """\
Microseconds of host work a decode tick (plan, launch, commit) with programs that do nothing; on a fast
GPU the pipeline is full as long as this is less than the device's step."""


def add_parser(kinds) -> None:
    host: CommandParser = kinds.add_parser("host", help="host work a tick", description=DESCRIPTION)
    host.add_argument(
        "--model",
        default="moondream2",
        metavar="NAME",
        help="whose settings decide how many arrays a step takes; as of `plan` (default: moondream2)",
    )
    host.add_argument("--rows", type=numbers, default=[8, 64], metavar="N,N", help="batch sizes (default: 8,64)")
    host.add_argument("--ticks", type=number(int, 10, 1500), default=400, metavar="N", help="ticks (default: 400)")
    host.add_argument("--busy", action="store_true", help="beside a thread that computes in Python all the while")
    host.add_argument(
        "--switch-interval",
        type=number(float, 1e-5, 1),
        metavar="SECONDS",
        help="how long a thread may keep the interpreter (default: what the engine sets; Python's own is 0.005)",
    )
    host.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def run(args) -> int:
    from jaxphoton import platform
    from jaxphoton.measure.cost_model import planned_family
    from jaxphoton.measure.host_bench import busy_thread, measure_host

    platform.find_device(None)
    try:
        family = planned_family(args.model)
    except ValueError as error:
        raise CommandError(str(error)) from error
    with platform.calmed_interpreter(), busy_thread() if args.busy else nullcontext():
        if args.switch_interval is not None:
            sys.setswitchinterval(args.switch_interval)
        costs = {rows: dataclasses.asdict(measure_host(family, rows, args.ticks)) for rows in args.rows}
    if args.json:
        rows = {str(rows): cost for rows, cost in costs.items()}
        print(json.dumps({"model": args.model, "rows": rows, "ticks": args.ticks, "busy": args.busy}))
        return OK
    print("microseconds a tick; programs do nothing" + (", another thread is busy" if args.busy else ""))
    print(f"{'':>5} {'medians':>8} {'':>26} {'whole tick':>12}")
    print(f"{'rows':>5} {'tick':>8} {'plan':>8} {'launch':>8} {'commit':>8} {'mean':>8} {'p99':>8}")
    for rows, cost in costs.items():
        print(f"{rows:>5} " + " ".join(f"{value:8.1f}" for value in cost.values()))
    return OK
