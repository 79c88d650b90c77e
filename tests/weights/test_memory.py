"""A full-size checkpoint loads beside little more than itself."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from jaxphoton.config import named_config
from jaxphoton.weights.mapping import abstract_leaves, placed_shape, placements

LOADER = """
import json, sys, threading, time
import jax, numpy as np
from jaxphoton.config import named_config
from jaxphoton.model.params import count
from jaxphoton.weights.load import load_params

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))

def watch():
    while not done.is_set():
        live = sum(array.nbytes for array in jax.live_arrays())
        peaks.append((anonymous() - live, anonymous()))
        time.sleep(0.005)

jax.block_until_ready(jax.device_put(np.zeros(1, np.float32)))
start = anonymous()
peaks, done = [], threading.Event()
watcher = threading.Thread(target=watch)
watcher.start()
begun = time.perf_counter()
params = load_params(sys.argv[1], named_config("moondream2"))
seconds = time.perf_counter() - begun
done.set()
watcher.join()
print(json.dumps({
    "start": start, "excess": max(p[0] for p in peaks), "peak": max(p[1] for p in peaks), "samples": len(peaks),
    "seconds": seconds, "count": count(params), "arrays": sum(a.nbytes for a in jax.live_arrays()),
    "wte": np.asarray(params.text.wte[7, :4], np.float32).tolist(),
    "bias": np.asarray(params.text.attn_bias[23, 6144:6148], np.float32).tolist(),
    "fc1_w": list(params.vision.fc1_w.shape), "dtype": params.text.wte.dtype.name,
}))
"""


@pytest.mark.slow
def test_peak_host_memory_of_a_full_size_load(tmp_path):
    path = tmp_path / "model.safetensors"
    try:
        size, starts = _write_sparse(path)
        marks = np.arange(1, 5).astype(ml_dtypes.bfloat16)
        with open(path, "r+b") as file:
            for offset in (starts["model.text.wte"] + 7 * 2048 * 2, starts["model.text.blocks.23.attn.proj.bias"]):
                file.seek(offset)
                file.write(marks.tobytes())
        run = subprocess.run([sys.executable, "-c", LOADER, str(path)], capture_output=True, text=True, timeout=600)
    finally:
        path.unlink(missing_ok=True)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    print(f"file {size / 1e9:.2f} GB, {report}")
    assert report["wte"] == report["bias"] == [1, 2, 3, 4]
    assert report["fc1_w"] == [27, 4304, 1152] and report["dtype"] == "bfloat16"
    assert report["count"] == (size - starts["data"]) // 2
    assert report["samples"] > 20
    assert report["excess"] < 0.3 * size


def _write_sparse(path) -> tuple[int, dict[str, int]]:
    """A published-form Moondream 2 file whose data are a hole (zeros); its size, and where each tensor starts."""
    config = named_config("moondream2")
    leaves = abstract_leaves(config)
    header, position = {}, 0
    for place in placements(config):
        shape = placed_shape(leaves[place.leaf].shape, place.index)
        stop = position + 2 * math.prod(shape)
        header[f"model.{place.name}"] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, stop]}
        position = stop
    text = json.dumps(header).encode()
    data = 8 + len(text)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(data + position)
    starts = {name: data + entry["data_offsets"][0] for name, entry in header.items()}
    return data + position, {**starts, "data": data}
