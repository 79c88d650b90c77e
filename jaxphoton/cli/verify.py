"""`jaxphoton verify [DIR]`: golden inputs and outputs against this machine and these versions."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxphoton.cli.base import FATAL, OK, CommandError
from jaxphoton.image.ways import RESIZES

if TYPE_CHECKING:
    from jaxphoton.verify.golden import GoldenModel
    from jaxphoton.verify.report import CaseReport

DESCRIPTION = """\
Runs golden inputs through this build and compares every recorded array: crops, vision features, hidden states of
every layer, logits, and whole generations. It proves a device, a driver or a new release of JAX.
Without DIR a small set for the model inside the package runs. Models of families that are not run here are left out."""
EPILOG = """\
examples:
  jaxphoton verify
  jaxphoton verify goldens/ --model md2-tiny --json

exit codes: 0 every case passed, 1 some case failed or nothing could be run
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "verify", help="prove this machine and these versions", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("dir", nargs="?", metavar="DIR", type=Path, help="a golden directory")
    parser.add_argument("--model", action="append", metavar="NAME", help="run this model only (may be repeated)")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        default="float32",
        help="precision; bfloat16 reports errors without judging them (default: float32)",
    )
    parser.add_argument(
        "--resize",
        choices=RESIZES,
        default="exact",
        help="of pictures; with fast, texts, boxes and points must be as recorded, and all else is reported without "
        "being judged (default: exact)",
    )
    parser.add_argument("--device", metavar="NAME", help="cpu, gpu, cuda:1, ... (default: jax's first device)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verifies; 0 if everything passed."""
    from jaxphoton import platform
    from jaxphoton.config import ConfigError, OtherFamily
    from jaxphoton.verify import golden
    from jaxphoton.verify.run import packaged_golden
    from jaxphoton.weights.load import WeightsError

    directory, weights = (args.dir, None) if args.dir else packaged_golden()
    judged = args.dtype == "float32"
    results: dict[str, dict] = {}
    left_out: dict[str, str] = {}
    try:
        device = platform.find_device(args.device)
        for model in _chosen(golden.open_golden(directory, weights), args.model):
            try:
                results[model.name] = _reports(model, args, device, judged)
            except OtherFamily as error:
                if args.model:
                    raise
                left_out[model.name] = str(error)
                print(f"{model.name} left out: {error}", file=sys.stderr)
        if not results:
            raise CommandError(f"nothing could be run: {'; '.join(left_out.values())}")
    except (golden.GoldenError, WeightsError, ConfigError, ValueError) as error:
        raise CommandError(str(error)) from error
    failed = [
        f"{name} {case.name}" for name, cases in results.items() for case in cases.values() if case.passed is False
    ]
    if args.json:
        print(json.dumps(_object(results, left_out, device.device_kind, args.dtype, judged, not failed), indent=1))
    else:
        total = sum(len(cases) for cases in results.values())
        print(f"{total - len(failed)} of {total} cases {'passed' if judged else 'ran'}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return FATAL if failed else OK


def _reports(model: GoldenModel, args: argparse.Namespace, device: Any, judged: bool) -> dict[str, CaseReport]:
    """The reports of all cases by name, printed as they come unless JSON is wanted."""
    from jaxphoton.verify.run import run_model

    reports = {}
    for report in run_model(model, args.dtype, device, judged, args.resize):
        if not args.json:
            if not reports:
                print(f"{model.name} in {args.dtype} on {device.device_kind}")
            print(report.line(), flush=True)
        reports[report.name] = report
    return reports


def _chosen(models: list, names: list[str] | None) -> list:
    known = [model.name for model in models]
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        raise CommandError(f"no model {', '.join(unknown)} there; it holds {', '.join(known)}")
    return [model for model in models if not names or model.name in names]


def _object(
    results: dict[str, dict], left_out: dict[str, str], device: str, dtype: str, judged: bool, passed: bool
) -> dict:
    import jax

    models = {name: {"cases": {c.name: c.as_json() for c in cases.values()}} for name, cases in results.items()}
    return {
        "models": models,
        "left_out": left_out,
        "passed": passed if judged else None,
        "dtype": dtype,
        "device": device,
        "jax": jax.__version__,
    }
