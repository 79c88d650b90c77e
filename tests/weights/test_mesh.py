"""Loading by shard: each device of a mesh gets its share of every leaf, and the host never holds more than a tensor."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxphoton.config.mesh import AXES, mesh_shape
from jaxphoton.layers.mesh import Split
from jaxphoton.layers.spec import GroupedForm, RowScaledForm, by_path, with_forms
from jaxphoton.models.forms import with_factors
from jaxphoton.models.moondream.config import ModelConfig, TextConfig
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.models.moondream.params import Form
from jaxphoton.models.moondream.reading import config_to_dict
from jaxphoton.models.naming import placed_shape
from jaxphoton.weights import assembling, layout, orbax, placing
from jaxphoton.weights.load import load_model, load_params

MESHES = ("model=2", "expert=2", "model=2,expert=2", "model=8")


def experts(text: TextConfig, count: int, width: int) -> Any:
    assert text.moe is not None
    return dataclasses.replace(text.moe, num_experts=count, expert_inner_dim=width)


@pytest.fixture(scope="module")
def configs(mini_config, moe_config) -> dict[str, ModelConfig]:
    """Moondream 2 and 3 of sizes that 8 devices can share."""

    def wide(config: ModelConfig) -> ModelConfig:
        vision = {"enc_dim": 16, "enc_n_heads": 8, "enc_ff_dim": 24, "proj_inner_dim": 32, "proj_out_dim": 32}
        text = dataclasses.replace(config.text, dim=32, ff_dim=48, n_heads=8, n_kv_heads=8)
        if text.moe is not None:
            text = dataclasses.replace(text, moe=experts(text, 4, 16))
        vision, region = dataclasses.replace(config.vision, **vision), dataclasses.replace(config.region, dim=32)
        return dataclasses.replace(config, vision=vision, text=text, region=region)

    return {"2": wide(mini_config), "3": wide(moe_config)}


def split_of(family: Any, mesh: str) -> Split:
    sizes = tuple(mesh_shape(mesh).values())
    return Split(Mesh(np.array(jax.devices()[: np.prod(sizes)]).reshape(sizes), AXES), family.network.counts())


def tensors_of(config: ModelConfig, forms: dict[str, Any]) -> dict[str, np.ndarray]:
    """As `published_tensors`, with matrices of these leaves in few bits and their factors beside them."""
    random, tensors = np.random.default_rng(0), {}
    family = MoondreamFamily(config)
    leaves = by_path(with_forms(family.network.specs(jnp.bfloat16), forms))
    for place in with_factors(family.tensors.placements(Form()), forms):
        leaf, shape = leaves[place.leaf], placed_shape(leaves[place.leaf].shape, place.index)
        drawn = random.normal(0, 30, shape) if leaf.dtype.itemsize == 1 else random.normal(size=shape)
        tensors[f"model.{place.name}"] = drawn.astype(np.float32).astype(leaf.dtype)
    return tensors


@pytest.fixture
def written(tmp_path, configs, write_file):
    """Writes a model as it is published, with matrices in these forms."""

    def write(model: str, forms: dict[str, Any]) -> Path:
        write_file(tmp_path / "model.safetensors", tensors_of(configs[model], forms))
        (tmp_path / "config.json").write_text(json.dumps(config_to_dict(configs[model])))
        return tmp_path

    return write


def check(path: Path, meshes: tuple[str, ...], **options: Any) -> Any:
    """Loaded by shard is what is loaded whole and shared out then, bit for bit."""
    family, whole = load_model(path, **options)
    whole = jax.tree.map(np.asarray, whole)  # which is put in order without being compiled
    specs = family.network.specs(family.network.dtype(whole), family.tensors.stored_form(by_path(whole)))
    for mesh in meshes:
        split = split_of(family, mesh)
        loaded, wanted = load_model(path, sharding=split, **options)[1], split.placed(whole, specs)
        assert jax.tree.structure(loaded) == jax.tree.structure(wanted)
        for name, leaf in by_path(wanted).items():
            found = by_path(loaded)[name]
            assert found.dtype == leaf.dtype and found.sharding == leaf.sharding, name
            assert np.asarray(found).tobytes() == np.asarray(leaf).tobytes(), (mesh, name)
    return whole


FEW = {
    "plain": {},
    "int8 by rows, some groups": {
        "text.layers.0.in_w": RowScaledForm("int8"),
        "text.layers.0.out_w": GroupedForm("int8", 16, "float32"),
        "text.layers.1.in_w": GroupedForm("float8_e4m3fn", 4, "bfloat16", "bfloat16"),
    },
}


@pytest.mark.parametrize("model", ["2", "3"])
@pytest.mark.parametrize("forms", FEW)
def test_shares_of_a_file(written, model, forms):
    path = written(model, FEW[forms])
    whole = check(path, MESHES)
    assert (len(whole.text.layers[0].in_w.__dataclass_fields__) > 1) == bool(FEW[forms])
    if FEW[forms]:
        check(path, MESHES[2:], quantize="none", dtype=jnp.float32)


def test_shares_of_experts_in_float8(written):
    experts = {
        f"text.layers.{i}.experts.{name}": RowScaledForm("float8_e4m3fn") for i in (1, 2) for name in ("fc1_w", "fc2_w")
    }
    path = written("3", experts)
    check(path, MESHES, quantized=True)
    check(path, MESHES[2:3])  # brought to the model's dtype on the way


@pytest.mark.parametrize("kind", ["int8", pytest.param("int4", marks=pytest.mark.slow)])
def test_shares_quantized_at_load(written, kind, monkeypatch):
    monkeypatch.setattr(placing, "PIECE", 300)  # numbers: matrices come in several pieces
    check(written("3", {}), MESHES[:1], quantize=kind)


@pytest.mark.parametrize("forms", FEW)
def test_shares_of_a_converted_checkpoint(written, tmp_path, forms):
    family, params = load_model(written("3", FEW[forms]))
    check(orbax.save(tmp_path / "converted", params, family), MESHES[2:3])


@pytest.mark.slow
def test_a_converted_checkpoint_in_another_form(written, tmp_path):
    for forms, kind in zip(FEW.values(), ("int4", "none"), strict=True):
        family, params = load_model(written("3", forms))
        check(orbax.save(tmp_path / kind, params, family), MESHES[2:3], quantize=kind)


def test_the_host_holds_no_more_than_the_largest_tensor(tmp_path, configs, write_file, monkeypatch):
    config = configs["3"]
    text = dataclasses.replace(
        config.text, moe=dataclasses.replace(config.text.moe, num_experts=128, expert_inner_dim=256)
    )
    tensors = tensors_of(config := dataclasses.replace(config, text=text), {})
    write_file(tmp_path / "model.safetensors", tensors)
    (tmp_path / "config.json").write_text(json.dumps(config_to_dict(config)))
    largest = max(tensor.nbytes for tensor in tensors.values())
    del tensors
    real = assembling.empty_leaf

    def unaligned(leaf):
        """Memory of the host that a CPU device copies, as a GPU would; of an aligned buffer it keeps the buffer."""
        found = real(jax.ShapeDtypeStruct((leaf.size + 1,), leaf.dtype))[1:]
        return found.reshape(leaf.shape)

    monkeypatch.setattr(assembling, "empty_leaf", unaligned)
    family = MoondreamFamily(config)
    split = split_of(family, "expert=4")
    jax.block_until_ready(load_params(tmp_path, family, sharding=split))
    tracemalloc.start()
    try:
        params = load_params(tmp_path, family, sharding=split)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    print(f"the host held {peak / largest:.2f} of the largest tensor")
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(params)) > 3 * largest
    # A share of the tensor is a quarter; without sharing the whole.
    assert 0.25 * largest <= peak <= 0.5 * largest, f"{peak:,} of {largest:,}"


def test_pieces_are_cut_where_they_lie():
    pieces = ((10, 14), (30, 33), (20, 25))
    numbers = np.concatenate([np.arange(*each) for each in pieces])
    for begin in range(len(numbers) + 1):
        for end in range(begin, len(numbers) + 1):
            found = [number for each in layout.cut(pieces, begin, end) for number in range(*each)]
            assert found == numbers[begin:end].tolist()
