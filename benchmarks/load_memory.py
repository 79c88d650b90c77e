"""Device memory while a checkpoint is loaded: PYTHONPATH=. python benchmarks/load_memory.py [--quantize int4].

A folder of random bfloat16 weights of a published size is written, tensor by tensor, and loaded by a process of its
own, which adds up the bytes of all live arrays at every transfer and every few milliseconds. Prints the largest sum,
beside the bytes that the weights take in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np

from jaxphoton.config.quantization import NAMES
from jaxphoton.layers.spec import by_path
from jaxphoton.models.naming import placed_shape
from jaxphoton.models.registry import family_of, named_family

BLOCK = 1 << 22  # numbers that are drawn; every tensor repeats them

LOADER = """
import json, resource, sys, threading, time
import jax
from jaxphoton.layers.spec import nbytes
from jaxphoton.weights.load import load_model

def live():
    return sum(nbytes(array) for array in jax.live_arrays())

def watch():
    while not done.wait(0.005):
        samples.append(live())

def sampled(*arguments, **options):
    array = put(*arguments, **options)
    samples.append(live())
    return array

samples, done, put = [0], threading.Event(), jax.device_put
jax.device_put = sampled
watcher = threading.Thread(target=watch)
watcher.start()
began, used = time.perf_counter(), time.process_time()
family, params = load_model(sys.argv[1], "bfloat16", quantize=json.loads(sys.argv[2]))
seconds = time.perf_counter() - began, time.process_time() - used
done.set()
watcher.join()
print(json.dumps({
    "peak": max(samples), "held": sum(map(nbytes, jax.tree.leaves(params))), "samples": len(samples),
    "clock": seconds[0], "processors": seconds[1],
    "process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="moondream2", help="whose settings (default: moondream2)")
    parser.add_argument("--quantize", choices=NAMES, default="int4", help="(default: int4)")
    parser.add_argument("--work", type=Path, help="where the checkpoint is written, and removed (default: /tmp)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.work) as scratch:
        whole = write_checkpoint(Path(scratch), args.model)
        report = measure(Path(scratch), args.quantize)
    share = report["peak"] / whole
    print(f"{args.model} as {args.quantize}: in bfloat16 {whole / 1e9:.3f} GB of weights")
    print(
        f"largest sum of live arrays {report['peak'] / 1e9:.3f} GB, {share:.3f} of that ({report['samples']} samples)"
    )
    print(f"held at the end {report['held'] / 1e9:.3f} GB; the process had at most {report['process'] / 1e9:.2f} GB")
    print(f"{report['clock']:.0f} s, {report['processors']:.0f} s of processors")


def measure(folder: Path, quantize: str) -> dict[str, float]:
    command = [sys.executable, "-c", LOADER, str(folder), json.dumps(quantize)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def write_checkpoint(folder: Path, name: str, layers: int | None = None) -> int:
    """A folder as models are published, perhaps of fewer layers, without a tokenizer; the bytes of its weights."""
    settings = named_family(name).to_json()
    if layers is not None:
        settings["config"]["text"]["n_layers"] = settings["config"]["vision"]["enc_n_layers"] = layers
    family = family_of(settings)
    tree = by_path(family.network.abstract("bfloat16"))
    places = family.tensors.placements(family.tensors.stored_form(tree))
    shapes = {place.name: placed_shape(tree[place.leaf].shape, place.index) for place in places}
    header, at = {}, 0
    for tensor, shape in shapes.items():
        end = at + 2 * math.prod(shape)
        header[f"model.{tensor}"] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    drawn = 0.02 * np.random.default_rng(0).standard_normal(BLOCK, dtype=np.float32)
    block = drawn.astype(ml_dtypes.bfloat16).tobytes()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, at, len(block)):
            file.write(block[: at - start])
    (folder / "config.json").write_text(json.dumps(family.to_json()), encoding="utf-8")
    return at


if __name__ == "__main__":
    main()
