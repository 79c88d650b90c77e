"""Programs compiled without this GPU, loaded on it."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from jaxphoton import Moondream
from jaxphoton.engine import gpus
from scripts.models import is_small

IMAGE = Path(__file__).parents[2] / "examples" / "shapes" / "scene_05.png"
GREEDY = {"temperature": 0.0}


def executables(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The shipped model, from its folder of executables and compiled here: seconds to the first caption, and both
    captions, which may differ by a word in bfloat16: what is compiled here is tuned here."""
    kind = jax.devices()[0].device_kind
    name = next((name for name, chip in gpus.CHIPS.items() if chip.kind == kind), None)
    if name is None and not is_small(args.model):
        yield {"skipped": f"{kind}: none of {', '.join(gpus.NAMES)}"}
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder, began = Path(scratch) / "executables", time.perf_counter()
        command = [sys.executable, "-m", "jaxphoton", "compile", "--model", "shapes", "--out", str(folder)]
        subprocess.run([*command, "--gpu", name or "cpu"], check=True)
        yield {"compiled_for": name or "cpu", "compile_s": time.perf_counter() - began}
        loaded, seconds = _caption(executables=folder)
        yield {"loaded_caption": loaded, "loaded_s": seconds}
    compiled, seconds = _caption()
    yield {"compiled_caption": compiled, "compiled_s": seconds, "same": loaded == compiled}


def _caption(**options: Any) -> tuple[str, float]:
    """A first caption, and the seconds from loading the model to it."""
    began = time.perf_counter()
    with Moondream.from_pretrained("shapes", **options) as model:
        text = model.caption(str(IMAGE), settings=GREEDY)["caption"]
    return text, time.perf_counter() - began
