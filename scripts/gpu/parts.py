"""`python -m scripts.gpu.parts NAME --result FILE`: one part of the GPU check.

A part yields what it has found as soon as it has; each time the file is written anew, so that a part that is killed
leaves what it had.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.models import is_small

MODULES = {
    "device": "machine",
    "host": "machine",
    "kernels": "kernels",
    "sweep": "sweep",
    "products": "sweep_products",
    "attention": "sweep_step",
    "equality": "equality",
    "verify": "equality",
    "step": "steps",
    "encode": "encode",
    "captions": "captions",
    "variants": "variants",
    "forms": "forms",
    "executables": "executables",
    "mesh": "mesh",
    "mesh_steps": "mesh",
    "flag": "variants",
    "callback": "steps",
}


def clean(value: Any) -> Any:
    """Without numbers that JSON does not know."""
    if isinstance(value, dict):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def write(path: Path, result: dict[str, Any]) -> None:
    """Whole or not at all."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(clean(result), indent=1) + "\n", encoding="utf-8")
    os.replace(draft, path)


def require_gpu() -> None:
    """A model of full size is not for a CPU; jax falls back to one without being asked."""
    import jax

    if jax.default_backend() == "cpu":
        raise SystemExit("jax finds no GPU here (its CUDA plugin, or the driver, is missing)")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=MODULES)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--model", default="moondream2")
    parser.add_argument("--goldens", type=Path)
    args = parser.parse_args()
    if not is_small(args.model):
        require_gpu()
    part = getattr(importlib.import_module(f"scripts.gpu.{MODULES[args.part]}"), args.part)
    found: dict[str, Any] = {}
    pieces: Iterator[dict[str, Any]] = part(args)
    for piece in pieces:
        found |= piece
        write(args.result, found)


if __name__ == "__main__":
    main()
