"""Fixtures of the weights tests: a safetensors writer of our own, and checkpoints with every tensor distinct."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from jaxphoton.config import ModelConfig, config_from_dict
from jaxphoton.weights.checkpoint import DTYPES
from jaxphoton.weights.mapping import abstract_leaves, placed_shape, placements

CODES = {dtype: code for code, dtype in DTYPES.items()}

Writer = Callable[[Path, Mapping[str, np.ndarray]], Path]


@pytest.fixture(scope="session")
def write_file() -> Writer:
    """Writes tensors as one safetensors file, header padded to 8 bytes."""

    def write(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
        header, blobs, position = {}, [], 0
        for name, tensor in tensors.items():
            blob = np.ascontiguousarray(tensor).tobytes()
            offsets = [position, position + len(blob)]
            header[name] = {"dtype": CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
            position += len(blob)
            blobs.append(blob)
        text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
        text += b" " * (-len(text) % 8)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))
        return path

    return write


@pytest.fixture(scope="session")
def mini_config() -> ModelConfig:
    """A model of a few thousand parameters whose extents all differ."""
    vision = {"enc_dim": 12, "enc_n_layers": 2, "enc_ff_dim": 20, "enc_n_heads": 3, "proj_out_dim": 16}
    vision |= {"proj_inner_dim": 28, "crop_size": 42, "overlap_margin": 1}
    text = {"dim": 16, "ff_dim": 36, "n_layers": 3, "vocab_size": 40, "max_context": 64, "n_heads": 4}
    text |= {"n_kv_heads": 2, "prefix_attn": 10}
    region = {"dim": 16, "coord_feat_dim": 8, "coord_out_dim": 32, "size_feat_dim": 10, "size_out_dim": 64}
    return config_from_dict({"config": {"vision": vision, "text": text, "region": region | {"inner_dim": 24}}})


@pytest.fixture
def mini_tensors(mini_config: ModelConfig) -> dict[str, np.ndarray]:
    """Published-style tensors of `mini_config` in bfloat16, from a seed."""
    rng = np.random.default_rng(0)
    leaves = abstract_leaves(mini_config)
    tensors = {}
    for place in placements(mini_config):
        shape = placed_shape(leaves[place.leaf].shape, place.index)
        shape = (1, *shape) if place.name == "vision.pos_emb" else shape
        tensors[f"model.{place.name}"] = rng.standard_normal(shape, np.float32).astype(DTYPES["BF16"])
    return tensors
