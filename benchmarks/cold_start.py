"""What a first caption costs in a fresh process: PYTHONPATH=. python benchmarks/cold_start.py [--against CHECKOUT].

A checkpoint of random weights is made, its programs are compiled and stored (`jaxphoton compile`), and two processes
caption one picture, in turns: this checkout with the stored executables, and a checkout (this one, or another) that
compiles, with an empty cache. Prints seconds of the clock and of processors, and peak memory, of each, and the medians
of the turns' ratios. On a machine that does other work, too, only the seconds of processors mean something.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ml_dtypes
import numpy as np

from jaxphoton.layers.spec import by_path
from jaxphoton.models.naming import placed_shape
from jaxphoton.models.registry import named_family

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "examples" / "shapes" / "scene_01.png"
ASK = """
import json, sys
from jaxphoton import Moondream
model = Moondream.from_pretrained(sys.argv[1], **json.loads(sys.argv[4]))
result = model.caption(sys.argv[2], settings={"temperature": 0.0, "max_tokens": int(sys.argv[3])})
print(len(result["caption"]), "characters")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="moondream-0.5b", help="whose settings (default: moondream-0.5b)")
    parser.add_argument("--against", type=Path, default=ROOT, metavar="CHECKOUT", help="what compiles (default: this)")
    parser.add_argument("--tokens", type=int, default=20, help="of the caption (default: 20)")
    parser.add_argument("--turns", type=int, default=5, help="(default: 5)")
    parser.add_argument("--work", type=Path, help="folder that keeps checkpoint and executables for the next time")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or Path(scratch)
        model, stored = work / args.model, work / f"{args.model}-executables"
        if not model.is_dir():
            make_checkpoint(model, args.model)
        if not stored.is_dir():
            command = [sys.executable, "-m", "jaxphoton", "compile", "--model", str(model), "--out", str(stored)]
            show("compile", measure([*command, "--gpu", "cpu"], ROOT, ""))
        ask = [sys.executable, "-c", ASK, str(model), str(PICTURE), str(args.tokens)]
        ratios = []
        for turn in range(args.turns):
            warm = measure([*ask, json.dumps({"executables": str(stored)})], ROOT, "")
            show("stored executables", warm)
            cold = measure([*ask, "{}"], args.against.absolute(), str(Path(scratch, f"cache-{turn}")))
            show(f"empty cache, {commit(args.against)}", cold)
            ratios.append({name: warm[name] / cold[name] for name in warm})
        medians = {name: statistics.median(turn[name] for turn in ratios) for name in ratios[0]}
        text = ", ".join(f"{name} {ratio:.2f}" for name, ratio in medians.items())
        print(f"stored executables to an empty cache, medians of {args.turns} turns: {text}")


def measure(command: list[str], checkout: Path, cache: str) -> dict[str, float]:
    """What a process and its children cost, with the code of a checkout and a cache folder ("" for none)."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "JAXPHOTON_CACHE": cache, "HF_HUB_OFFLINE": "1"}
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=checkout, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command[1:3]} in {checkout}: exit status {os.waitstatus_to_exitcode(status)}")
    seconds = time.monotonic() - began
    return {"clock": seconds, "processors": usage.ru_utime + usage.ru_stime, "memory": usage.ru_maxrss * 1024 / 1e9}


def show(name: str, spent: dict[str, float]) -> None:
    clock, processors, memory = spent.values()
    print(f"{name:<32} {clock:7.1f} s, {processors:7.1f} s of processors, peak {memory:.2f} GB", flush=True)


def commit(checkout: Path) -> str:
    done = subprocess.run(["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip() or checkout.name


def make_checkpoint(folder: Path, name: str) -> None:
    """A folder as models are published, of random bfloat16 weights and the tokenizer of the packaged model."""
    family = named_family(name)
    tree = by_path(family.network.abstract("bfloat16"))
    tensors: dict[str, tuple[int, ...]] = {}
    for place in family.tensors.placements(family.tensors.stored_form(tree)):
        tensors[place.name] = placed_shape(tree[place.leaf].shape, place.index)
    header, at = {}, 0
    for tensor, shape in tensors.items():
        end = at + 2 * math.prod(shape)
        header[tensor] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in tensors.values():
            numbers = random.standard_normal(math.prod(shape), dtype=np.float32)
            file.write((0.02 * numbers).astype(ml_dtypes.bfloat16).tobytes())
    (folder / "config.json").write_text(json.dumps(family.to_json()), encoding="utf-8")
    tokens = (ROOT / "jaxphoton" / "assets" / "shapes" / "tokenizer.json").read_text(encoding="utf-8")
    # Under its usual name the token would have to have the id of the settings.
    (folder / "tokenizer.json").write_text(tokens.replace("<|endoftext|>", "<|end|>"), encoding="utf-8")


if __name__ == "__main__":
    main()
