from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jaxphoton.models.moondream.family import MoondreamFamily


@pytest.fixture(scope="session")
def family(mini_config) -> MoondreamFamily:
    """Moondream 2 of three layers of width 16, inner width 36."""
    return MoondreamFamily(mini_config)


@pytest.fixture(scope="session")
def expert_family(moe_config) -> MoondreamFamily:
    """Moondream 3: a dense layer, then two of five experts of inner width 6."""
    return MoondreamFamily(moe_config)


def pair(shape, rank: int = 4, seed: int = 0, dtype=np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Matrices for one of `shape` [..., rows, columns]."""
    *experts, rows, columns = shape
    rng = np.random.default_rng(seed)
    a, b = ((*experts, rank, columns), (*experts, rows, rank))
    return rng.standard_normal(a, np.float32).astype(dtype), rng.standard_normal(b, np.float32).astype(dtype)


def peft_tensors(shapes, rank: int = 4, prefix: str = "base_model.model.model.", dtype=np.float32):
    """Module path -> shape of its matrix, as PEFT names the tensors."""
    tensors = {}
    for path, shape in shapes.items():
        a, b = pair(shape, rank, len(tensors), dtype)
        tensors |= {f"{prefix}{path}.lora_A.weight": a, f"{prefix}{path}.lora_B.weight": b}
    return tensors


@pytest.fixture(scope="session")
def write_peft(write_file):
    """Writes a folder of PEFT; settings beside the usual ones are keywords."""

    def write(folder: Path, tensors, **settings) -> Path:
        write_file(folder / "adapter_model.safetensors", tensors)
        config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", "init_lora_weights": True}
        (folder / "adapter_config.json").write_text(json.dumps(config | settings), encoding="utf-8")
        return folder

    return write
