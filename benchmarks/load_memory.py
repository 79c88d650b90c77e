"""Memory while a checkpoint is loaded: PYTHONPATH=. python benchmarks/load_memory.py [--model joycaption --layers 2].

A folder of random bfloat16 weights of a published size, or of fewer layers, is written, tensor by tensor and in as many
files as models of that size are published in, and loaded by a process of its own, which adds up the bytes of all live
arrays at every transfer and every few milliseconds. Prints the largest sum, beside the bytes that the weights take in
bfloat16. With --headers the files are of full size and nothing but headers, and what is printed is what loading them
would read.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import ml_dtypes
import numpy as np

from jaxphoton.config.quantization import NAMES, QUANTIZATIONS
from jaxphoton.layers.spec import by_path, nbytes
from jaxphoton.measure.cost_model import weight_bytes
from jaxphoton.models.naming import placed_shape
from jaxphoton.models.protocol import Family
from jaxphoton.weights.load import abstract_model
from scripts.models import family_named

BLOCK = 1 << 22  # numbers that are drawn; every tensor repeats them
SHARD = 5_000_000_000  # bytes of a file, at most
# How the names that are published begin, by how ours do: of each the first that fits.
PUBLISHED = {
    "moondream": (("", "model."),),
    "joycaption": (
        ("lm_head.", "language_model.lm_head."),
        ("language_model.", "language_model.model."),
        ("vision_tower.", "vision_tower.vision_model."),
        ("", ""),
    ),
    "smolvlm": (("lm_head.", "lm_head."), ("", "model.")),
}

LOADER = """
import json, resource, sys, threading, time
import jax
from jaxphoton.layers.spec import nbytes
from jaxphoton.weights.load import load_model

def live():
    buffers = {}
    for array in jax.live_arrays():
        try:
            buffers[array.unsafe_buffer_pointer()] = nbytes(array)  # of which several arrays may be views
        except (RuntimeError, ValueError):
            pass  # deleted by now
    return sum(buffers.values())

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
    parser.add_argument("--model", default="moondream2", help="whose settings, or joycaption (default: moondream2)")
    parser.add_argument("--layers", type=int, help="of both parts (default: all)")
    parser.add_argument("--quantize", choices=NAMES, default="int4", help="(default: int4)")
    parser.add_argument("--headers", action="store_true", help="read nothing but these, of all layers")
    parser.add_argument("--work", type=Path, help="where the checkpoint is written, and removed (default: /tmp)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.work) as scratch:
        whole = write_checkpoint(Path(scratch), args.model, args.layers, holes=args.headers)
        print(f"{args.model}: {whole / 1e9:.3f} GB of weights in bfloat16")
        if args.headers:
            tell_headers(Path(scratch))
            return
        report = measure(Path(scratch), args.quantize)
    share = report["peak"] / whole
    print(f"as {args.quantize}: largest sum of live arrays {report['peak'] / 1e9:.3f} GB, {share:.3f} of that")
    print(f"({report['samples']} samples); held at the end {report['held'] / 1e9:.3f} GB; the process had at most")
    print(f"{report['process'] / 1e9:.2f} GB; {report['clock']:.0f} s, {report['processors']:.0f} s of processors")


def tell_headers(folder: Path) -> None:
    """Of a checkpoint: its files, the largest leaf, which the host holds, and what the device has at the end."""
    family, tree = abstract_model(folder, "bfloat16")
    leaves = by_path(tree)
    largest = max(leaves, key=lambda name: nbytes(leaves[name]))
    print(f"{len(list(folder.glob('*.safetensors')))} files, {len(leaves)} leaves")
    print(f"the host holds at most {nbytes(leaves[largest]) / 1e9:.3f} GB beside them: {largest}")
    for name in (None, *QUANTIZATIONS):
        held = sum(map(nbytes, jax.tree.leaves(abstract_model(folder, "bfloat16", quantize=name)[1])))
        assert held == sum(weight_bytes(family, "bfloat16", name).values())
        print(f"{name or 'bfloat16':<9} {held / 1e9:7.3f} GB on the device")


def measure(folder: Path, quantize: str) -> dict[str, float]:
    command = [sys.executable, "-c", LOADER, str(folder), json.dumps(quantize)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def write_checkpoint(folder: Path, name: str, layers: int | None = None, holes: bool = False) -> int:
    """A folder as models are published, perhaps of fewer layers, without a tokenizer; the bytes of its weights. With
    `holes` its numbers are zeros that take no room on a disk."""
    family = family_named(name, layers, vision_layers=layers)
    shapes = dict(tensors(family))
    drawn = 0.02 * np.random.default_rng(0).standard_normal(BLOCK, dtype=np.float32)
    block = drawn.astype(ml_dtypes.bfloat16).tobytes()
    files, size = [dict[str, tuple[int, ...]]()], 0
    for tensor, shape in shapes.items():
        size += 2 * math.prod(shape)
        if size > SHARD * len(files):
            files.append({})
        files[-1][tensor] = shape
    index = {}
    for number, own in enumerate(files, 1):
        file = "model.safetensors" if len(files) == 1 else f"model-{number:05}-of-{len(files):05}.safetensors"
        write_file(folder / file, own, None if holes else block)
        index |= dict.fromkeys(own, file)
    if len(files) > 1:
        text = json.dumps({"metadata": {"total_size": size}, "weight_map": index})
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(family.to_json()), encoding="utf-8")
    return size


def write_file(path: Path, shapes: dict[str, tuple[int, ...]], block: bytes | None) -> None:
    """Tensors of repeated blocks of numbers; None for a hole."""
    header, at = {}, 0
    for tensor, shape in shapes.items():
        end = at + 2 * math.prod(shape)
        header[tensor] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        if block is None:
            file.truncate(8 + len(text) + at)
            return
        for start in range(0, at, len(block)):
            file.write(block[: at - start])


def tensors(family: Family) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The tensors of a published checkpoint and their shapes."""
    tree = by_path(family.network.abstract("bfloat16"))
    for place in family.tensors.placements(family.tensors.stored_form(tree)):
        shape = placed_shape(tree[place.leaf].shape, place.index)
        if place.name.endswith("patch_embedding.weight"):
            side = family.config.vision.patch_size
            shape = (shape[0], 3, side, side)
        old, new = next(pair for pair in PUBLISHED[family.name] if place.name.startswith(pair[0]))
        yield new + place.name.removeprefix(old), shape


if __name__ == "__main__":
    main()
