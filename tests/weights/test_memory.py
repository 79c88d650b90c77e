"""A checkpoint loads beside little more than itself: the host holds one leaf at a time."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from jaxphoton.layers.spec import by_path
from jaxphoton.models.moondream.config import ModelConfig, MoeConfig
from jaxphoton.models.moondream.names import placements
from jaxphoton.models.moondream.params import abstract
from jaxphoton.models.moondream.reading import config_to_dict, named_config
from jaxphoton.models.naming import placed_shape

# Memory is sampled all the time, and at every transfer: a leaf is whole then.
LOADER = """
import json, sys, threading, time
import jax, numpy as np
from jaxphoton.models.moondream.params import count
from jaxphoton.weights.load import load_model

def live():
    return sum(array.nbytes for array in jax.live_arrays())

def sample():
    before = live()
    with open("/proc/self/status") as status:
        anonymous = next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))
    if live() == before:  # otherwise the two figures are not of one moment
        samples.append((anonymous - before, anonymous))

def watch():
    while not done.wait(0.002):
        sample()

def sampled(*arguments):
    sample()
    array = put(*arguments)
    sample()
    return array

samples, done, put = [], threading.Event(), jax.device_put
jax.block_until_ready(put(np.zeros(1, np.float32)))
sample()
start = samples[0][0]
jax.device_put = sampled
watcher = threading.Thread(target=watch)
watcher.start()
begun = time.perf_counter()
family, params = load_model(sys.argv[1])
config = family.config
seconds = time.perf_counter() - begun
done.set()
watcher.join()
print(json.dumps({
    "start": start, "excess": max(s[0] for s in samples) - start, "peak": max(s[1] for s in samples),
    "samples": len(samples), "seconds": seconds, "count": count(params),
    "wte": np.asarray(params.text.wte[7, :4], np.float32).tolist(),
    "bias": np.asarray((params.text.out_b[-1, 0] if config.text.moe is None else params.text.proj_b[-1])[:4],
                       np.float32).tolist(),
}))
"""
MARKS = np.arange(1, 5).astype(ml_dtypes.bfloat16)


def test_peak_host_memory_of_a_sharded_load(tmp_path):
    """Moondream 3 at reduced size, with its proportions: the experts' tensors are the largest leaves."""
    config = _reduced()
    sizes = _write_sparse(tmp_path, config, shards=4)
    report = _load(tmp_path)
    largest, shard = max(sizes["tensors"].values()), max(sizes["shards"])
    print(f"largest tensor {largest / 1e6:.1f} MB, shard {shard / 1e6:.1f} MB, {report}")
    assert report["count"] * 2 > 8 * largest, "the model is much larger than what may be held"
    assert report["excess"] < largest + 0.1 * shard


@pytest.mark.slow
def test_peak_host_memory_of_a_full_size_load(tmp_path):
    try:
        sizes = _write_sparse(tmp_path, named_config("moondream2"), shards=2)
        report = _load(tmp_path)
    finally:
        for file in tmp_path.glob("*.safetensors"):
            file.unlink()
    largest, shard = max(sizes["tensors"].values()), max(sizes["shards"])
    print(f"{sum(sizes['shards']) / 1e9:.2f} GB, largest tensor {largest / 1e6:.0f} MB, {report}")
    assert report["excess"] < largest + 0.1 * shard


def _reduced() -> ModelConfig:
    full = named_config("moondream3")
    vision = dataclasses.replace(full.vision, enc_n_layers=3, enc_ff_dim=1024, proj_out_dim=1024, proj_inner_dim=1024)
    moe = MoeConfig(num_experts=8, start_layer=1, experts_per_token=2, expert_inner_dim=1024)
    text = dataclasses.replace(full.text, dim=1024, ff_dim=2048, n_layers=7, vocab_size=8192, moe=moe)
    region = dataclasses.replace(full.region, dim=1024)
    return ModelConfig(vision=vision, text=text, region=region)


def _load(folder: Path) -> dict:
    run = subprocess.run([sys.executable, "-c", LOADER, str(folder)], capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert report["wte"] == report["bias"] == [1, 2, 3, 4]
    assert report["samples"] > 100
    return report


def _write_sparse(folder: Path, config: ModelConfig, shards: int) -> dict:
    """Writes a published checkpoint whose data are holes (zeros) but for two marks; the bytes of its parts."""
    leaves = by_path(abstract(config))
    shapes = {f"model.{p.name}": placed_shape(leaves[p.leaf].shape, p.index) for p in placements(config)}
    tensors = {name: 2 * math.prod(shape) for name, shape in shapes.items()}
    share, homes, position = sum(tensors.values()) / shards, {}, 0
    for name, size in tensors.items():
        homes[name] = f"model-{int(position // share) + 1:05}-of-{shards:05}.safetensors"
        position += size
    marks = {
        "model.text.wte": 7 * config.text.dim * 2,
        f"model.text.blocks.{config.text.n_layers - 1}.attn.proj.bias": 0,
    }
    for shard in set(homes.values()):
        _write_shard(folder / shard, {name: shapes[name] for name in homes if homes[name] == shard}, marks)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": homes}))
    (folder / "config.json").write_text(json.dumps(config_to_dict(config)))
    return {"tensors": tensors, "shards": [(folder / shard).stat().st_size for shard in set(homes.values())]}


def _write_shard(path: Path, shapes: dict[str, tuple[int, ...]], marks: dict[str, int]) -> None:
    header, position = {}, 0
    for name, shape in shapes.items():
        stop = position + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, stop]}
        position = stop
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + position)
        for name in marks.keys() & shapes.keys():
            file.seek(8 + len(text) + header[name]["data_offsets"][0] + marks[name])
            file.write(MARKS.tobytes())
