"""Moondream 3: every form that its weights come in gives the same parameters."""

from __future__ import annotations

import dataclasses
import json
import tarfile
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.layers.spec import by_path
from jaxphoton.models.moondream.params import PUBLISHED, Form, abstract
from jaxphoton.models.moondream.reading import config_to_dict, load_config
from jaxphoton.weights.load import WeightsError, abstract_model
from jaxphoton.weights.safetensors import TensorFile
from tests.layers.forms import dense_of, float8_experts, scaled_of
from tests.weights import loading
from tests.weights.loading import load_model, load_params


def _read(path: Path) -> dict[str, np.ndarray]:
    file = TensorFile(path)
    return {name: file.read(name) for name in file.entries}


def _same(one, two) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def _fits(params, config, dtype, form: Form = PUBLISHED, float8: bool = False) -> None:
    tree = abstract(config, dtype, form)
    tree = float8_experts(tree) if float8 else tree
    assert jax.tree.structure(params) == jax.tree.structure(tree)
    for leaf, wanted in zip(jax.tree.leaves(params), jax.tree.leaves(tree), strict=True):
        assert (leaf.shape, leaf.dtype) == (wanted.shape, wanted.dtype)


def _without_experts(params):
    layers = tuple(dataclasses.replace(layer, experts=None) for layer in params.text.layers)
    return dataclasses.replace(params, text=dataclasses.replace(params.text, layers=layers))


def _shard(folder: Path, write_file, tensors, count: int = 3) -> Path:
    """Writes tensors as Hugging Face shards with their index."""
    names, homes = list(tensors), {}
    for i in range(count):
        shard = f"model-{i + 1:05}-of-{count:05}.safetensors"
        write_file(folder / shard, {name: tensors[name] for name in names[i::count]})
        homes |= dict.fromkeys(names[i::count], shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": homes}))
    return folder


@pytest.mark.smoke
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_golden_checkpoint(goldens, dtype):
    config, params = load_model(goldens / "md3-tiny", dtype)
    _fits(params, config, dtype)
    stored = _read(goldens / "md3-tiny" / "model.safetensors")
    stored = {name.removeprefix("model."): tensor.astype(np.float32) for name, tensor in stored.items()}
    dense, last = params.text.layers[0], params.text.layers[3]
    attended, qkv = config.text.n_heads * config.text.head_dim, config.text.qkv_dim
    assert dense.experts is None and last.experts is not None
    wanted = {
        "text.blocks.0.attn.qkv.weight": dense_of(dense.in_w).matrix[:qkv],
        "text.blocks.0.mlp.fc1.weight": dense_of(dense.in_w).matrix[qkv:],
        "text.blocks.0.attn.proj.weight": dense_of(dense.out_w).matrix[:, :attended],
        "text.blocks.0.mlp.fc2.weight": dense_of(dense.out_w).matrix[:, attended:],
        "text.blocks.0.mlp.fc1.bias": params.text.in_b[0, qkv:],
        "text.blocks.0.mlp.fc2.bias": params.text.out_b[0, 1],
        "text.blocks.3.attn.qkv.weight": dense_of(last.in_w).matrix,
        "text.blocks.3.attn.proj.bias": params.text.proj_b[2],
        "text.blocks.3.mlp.fc1.weight": dense_of(last.experts.fc1_w).matrix,
        "text.blocks.3.mlp.fc2.weight": dense_of(last.experts.fc2_w).matrix,
        "text.blocks.3.mlp.router.weight": dense_of(last.experts.router_w).matrix,
        "text.blocks.3.mlp.router.bias": params.text.router_b[2],
        "text.blocks.3.attn.tau.wq": dense_of(last.tau_w).matrix[:4],
        "text.blocks.3.attn.tau.wv": dense_of(last.tau_w).matrix[4:],
        "text.blocks.3.attn.tau.alpha": params.text.tau_alpha[3],
        "region.coord_decoder.weight": dense_of(params.region.coord_w).matrix,
        "region.size_decoder.bias": params.region.head_b[1024:],
        "region.ln.weight": params.region.ln[0],
    }
    for name, leaf in wanted.items():
        np.testing.assert_array_equal(np.asarray(leaf, np.float32), stored[name], name)


@pytest.fixture(params=["safetensors", "pt"])
def golden_float8(request, goldens, tmp_path, write_torch) -> Path:
    """The golden float8 file, in both file formats."""
    file = goldens / "md3-tiny" / "model_photon_fp8.safetensors"
    if request.param == "safetensors":
        return file
    (tmp_path / "config.json").write_text((goldens / "md3-tiny" / "config.json").read_text())
    return write_torch(tmp_path / "model_fp8.pt", _read(file))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_golden_float8_file(goldens, golden_float8, dtype):
    config, params = load_model(golden_float8, dtype)
    published, plain = load_model(goldens / "md3-tiny", dtype)
    assert config == published
    _fits(params, config, dtype)
    _same(_without_experts(params), _without_experts(plain))
    kept = load_model(golden_float8, dtype, quantized=True)[1]
    _fits(kept, config, dtype, float8=True)
    stored = _read(goldens / "md3-tiny" / "model_photon_fp8.safetensors")
    for i in (1, 2, 3):
        front = f"text_model.transformer.h.{i}."
        scales = [stored[f"{front}moe_quant.{name}_scale"] for name in ("up", "down")]
        held, restored, original = (tree.text.layers[i].experts for tree in (kept, params, plain))
        np.testing.assert_array_equal(scaled_of(held.fc1_w).scale, scales[0])
        np.testing.assert_array_equal(scaled_of(held.fc2_w).scale, scales[1])
        for name, leaf, scale in (("experts", "fc1_w", scales[0]), ("output_experts", "fc2_w", scales[1])):
            weight = stored[f"{front}mlp.{name}.weight"]
            assert np.asarray(getattr(held, leaf).matrix).tobytes() == weight.tobytes()
            exact = weight.astype(np.float32) * scale[:, :, None]
            got = np.asarray(getattr(restored, leaf).matrix)
            assert got.tobytes() == exact.astype(jnp.dtype(dtype)).tobytes()
            # A normal float8 is within 1/16 of what it stands for, a subnormal within half its step of 2^-9.
            true = np.asarray(getattr(original, leaf).matrix, np.float32)
            assert (np.abs(exact - true) <= np.abs(true) / 15 + scale[:, :, None] * 2**-9).all()


def test_golden_checkpoint_in_shards(goldens, tmp_path, write_file):
    folder = _shard(tmp_path, write_file, _read(goldens / "md3-tiny" / "model.safetensors"))
    (folder / "config.json").write_text((goldens / "md3-tiny" / "config.json").read_text())
    config, params = load_model(folder)
    _same(params, load_model(goldens / "md3-tiny")[1])
    assert config == load_config(goldens / "md3-tiny" / "config.json")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory, write_file, published_tensors, moe_config):
    """Tensors with everything that a checkpoint may hold, and their parameters."""
    tensors = published_tensors(moe_config, Form(kv_scales=True), float8=True)
    path = write_file(tmp_path_factory.mktemp("loaded") / "a.safetensors", tensors)
    return tensors, load_params(path, moe_config, jnp.float32, quantized=True)


@given(data=st.data())
def test_every_form_gives_the_same_parameters(moe_config, loaded, write_file, write_torch, training_style, data):
    """Names, fused and split tau, compiled modules, order, shards and file format are all free."""
    tensors, wanted = loaded
    choose = lambda options: data.draw(st.sampled_from(options))  # noqa: E731
    if choose(["published", "training"]) == "training":
        tensors = training_style(tensors)
        for i in range(moe_config.text.n_layers):
            front = f"text_model.transformer.h.{i}.tau_"
            if choose([True, False]):
                tensors[f"{front}wqwv"] = np.concatenate([tensors.pop(f"{front}{half}") for half in ("wq", "wv")])
        if choose([True, False]):
            tensors = {name.replace(".blocks.", "._orig_mod.blocks."): t for name, t in tensors.items()}
    tensors = {name: tensors[name] for name in data.draw(st.permutations(sorted(tensors)))}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        match choose(["shards", "safetensors", "pt"]):
            case "shards":
                path = _shard(folder, write_file, tensors, data.draw(st.integers(1, 5)))
            case "safetensors":
                path = write_file(folder / "any.safetensors", tensors)
            case _:
                path = write_torch(folder / "any.pt", tensors)
        _same(load_params(path, moe_config, jnp.float32, quantized=True), wanted)


def test_the_layer_norm_of_the_regions_is_there_or_not(tmp_path, write_file, moe_config, moe_tensors):
    (tmp_path / "config.json").write_text(json.dumps(config_to_dict(moe_config)))
    bare = {name: tensor for name, tensor in moe_tensors.items() if "region.ln" not in name}
    config, params = load_model(write_file(tmp_path / "bare.safetensors", bare))
    assert not config.region.use_ln and params.region.ln is None
    _fits(params, config, jnp.bfloat16)
    without = dataclasses.replace(moe_config, region=dataclasses.replace(moe_config.region, use_ln=False))
    (tmp_path / "config.json").write_text(json.dumps(config_to_dict(without)))
    config, params = load_model(write_file(tmp_path / "full.safetensors", moe_tensors))
    assert config == moe_config
    np.testing.assert_array_equal(params.region.ln[1], moe_tensors["model.region.ln.bias"])
    del moe_tensors["model.region.ln.bias"]
    with pytest.raises(WeightsError, match=r"1 missing: region.ln.bias"):
        load_model(write_file(tmp_path / "half.safetensors", moe_tensors))


def test_scales_of_keys_and_values_count_if_all_layers_have_them(tmp_path, write_file, moe_config, float8_tensors):
    params = load_params(write_file(tmp_path / "a.safetensors", float8_tensors), moe_config)
    stored = [[float8_tensors[f"model.text.blocks.{i}.attn.{kind}_scale"][0] for kind in "kv"] for i in range(3)]
    np.testing.assert_array_equal(params.text.kv_scale, stored)
    _fits(params, moe_config, jnp.bfloat16, Form(kv_scales=True))
    del float8_tensors["model.text.blocks.2.attn.v_scale"]
    params = load_params(write_file(tmp_path / "b.safetensors", float8_tensors), moe_config)
    assert params.text.kv_scale is None


def test_faults_of_experts(tmp_path, write_file, moe_config, moe_tensors, float8_tensors):
    def load(tensors, **choice):
        load_params(write_file(tmp_path / "a.safetensors", tensors), moe_config, **choice)

    with pytest.raises(WeightsError, match=r"a.safetensors: the weights hold no float8 experts to keep"):
        load(moe_tensors, quantized=True)
    name = "model.text.blocks.1.mlp.fc1"
    without = {other: tensor for other, tensor in float8_tensors.items() if other != f"{name}.scale"}
    with pytest.raises(WeightsError, match=r"1 missing: text.blocks.1.mlp.fc1.scale"):
        load(without)
    with pytest.raises(WeightsError, match=rf"1 unexpected: {name}.scale"):
        load({**moe_tensors, f"{name}.scale": np.ones((5, 12), np.float32)})
    mixed = {**float8_tensors, f"{name}.weight": moe_tensors[f"{name}.weight"]}
    with pytest.raises(WeightsError, match=rf"1 unexpected: {name}.scale"):
        load(mixed)
    del mixed[f"{name}.scale"]
    load(mixed, quantized=True)
    with pytest.raises(WeightsError, match=rf"{name}.scale \(\[5, 11\] instead of \[5, 12\]\)"):
        load({**float8_tensors, f"{name}.scale": np.ones((5, 11), np.float32)})


def test_a_fused_tensor_of_another_shape(tmp_path, write_file, moe_config, moe_tensors, training_style):
    tensors = training_style(moe_tensors)
    for half in ("wq", "wv"):
        del tensors[f"text_model.transformer.h.0.tau_{half}"]
    tensors["text_model.transformer.h.0.tau_wqwv"] = np.ones((7, 48), np.float32)
    with pytest.raises(WeightsError, match=r"1 misshapen: .*tau_wqwv \(\[7, 48\] instead of \[8, 48\]\)"):
        load_params(write_file(tmp_path / "a.safetensors", tensors), moe_config)


def test_faults_of_shards(tmp_path, write_file, moe_config, moe_tensors):
    folder = _shard(tmp_path, write_file, moe_tensors)
    assert load_params(folder, moe_config)
    index = folder / "model.safetensors.index.json"
    complete = index.read_text()
    homes = json.loads(complete)["weight_map"]
    shard = homes.pop("model.text.blocks.2.mlp.fc1.weight")
    index.write_text(json.dumps({"weight_map": homes}))
    message = rf"1 tensors of the shards are not in the index: model.text.blocks.2.mlp.fc1.weight \({shard}\)"
    with pytest.raises(WeightsError, match=message):
        load_params(folder, moe_config)
    index.write_text(complete)
    whole = (folder / shard).read_bytes()
    (folder / shard).write_bytes(whole[:-1])
    with pytest.raises(WeightsError, match=rf"{shard}: header of tensor .*truncated"):
        load_params(folder, moe_config)
    (folder / shard).write_bytes(whole[:100])
    with pytest.raises(WeightsError, match=rf"{shard}: truncated"):
        load_params(folder, moe_config)
    (folder / shard).unlink()
    with pytest.raises(WeightsError, match=rf"1 of 3 shards are missing: {shard}"):
        load_params(folder, moe_config)


def test_a_converted_checkpoint_of_an_earlier_version(tmp_path, moe_config):
    """Written in November 2026, when attention and MLP of a layer were matrices of their own."""
    with tarfile.open(Path(__file__).parent / "data" / "converted.tar.xz") as archive:
        archive.extractall(tmp_path / "old", filter="data")
    config, restored = load_model(tmp_path / "old", quantized=True)
    assert config == moe_config
    with ocp.StandardCheckpointer() as checkpointer:
        old = {name: np.asarray(leaf) for name, leaf in checkpointer.restore(tmp_path / "old" / "params").items()}
    qkv, ff = moe_config.text.qkv_dim, moe_config.text.ff_dim
    attention, mlp, layers = old["text.attn_bias"], old["text.mlp_bias"], [f"text.layers.{i}" for i in range(3)]
    wanted = {name: leaf for name, leaf in old.items() if not name.endswith(("fc1_w", "fc2_w", "qkv_w", "proj_w"))}
    wanted |= {name: leaf for name, leaf in old.items() if name.startswith(("vision.", "region.")) or "experts" in name}
    del wanted["text.attn_bias"], wanted["text.mlp_bias"]
    wanted |= {
        f"{layers[0]}.in_w": np.concatenate([old[f"{layers[0]}.{name}"] for name in ("qkv_w", "fc1_w")]),
        f"{layers[0]}.out_w": np.concatenate([old[f"{layers[0]}.{name}"] for name in ("proj_w", "fc2_w")], axis=1),
        **{f"{layer}.in_w": old[f"{layer}.qkv_w"] for layer in layers[1:]},
        **{f"{layer}.out_w": old[f"{layer}.proj_w"] for layer in layers[1:]},
        "text.in_b": np.concatenate([attention[:1, :qkv], mlp[:, :ff]], axis=1),
        "text.out_b": np.stack([attention[:1, qkv:], mlp[:, ff:]], axis=1),
        "text.qkv_b": attention[1:, :qkv],
        "text.proj_b": attention[1:, qkv:],
    }
    found = by_path(restored)
    assert found.keys() == wanted.keys()
    for name, leaf in wanted.items():
        assert np.asarray(found[name]).tobytes() == leaf.tobytes() and found[name].shape == leaf.shape, name
    # What is written now has today's leaves, and reads the same.
    folder = loading.save(tmp_path / "new", restored, moe_config)
    assert _stored_leaves(folder) == found.keys()
    for kept in (True, False):
        _same(load_model(folder, quantized=kept)[1], load_model(tmp_path / "old", quantized=kept)[1])


def test_a_converted_checkpoint_of_an_earlier_version_and_of_another_model(tmp_path, moe_config):
    with tarfile.open(Path(__file__).parent / "data" / "converted.tar.xz") as archive:
        archive.extractall(tmp_path / "old", filter="data")
    settings = tmp_path / "old" / "config.json"
    stored = json.loads(settings.read_text())
    stored["config"]["text"]["ff_dim"] += 2
    stored.pop("checksums", None)
    settings.write_text(json.dumps(stored))
    message = r"3 leaves do not fit .*text\.layers\.0\.fc1_w \(\(36, 16\) instead of \(38, 16\)\)"
    with pytest.raises(WeightsError, match=message):
        load_model(tmp_path / "old")


def _stored_leaves(folder: Path) -> set[str]:
    with ocp.StandardCheckpointer() as checkpointer:
        return set(checkpointer.metadata(folder / "params").item_metadata.tree)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_converted_checkpoints(tmp_path, write_file, moe_config, float8_tensors, kept, dtype):
    path = write_file(tmp_path / "a.safetensors", float8_tensors)
    params = load_params(path, moe_config, dtype, quantized=kept)
    folder = loading.save(tmp_path / "out", params, moe_config)
    config, restored = load_model(folder, dtype, quantized=kept)
    assert config == moe_config
    _same(restored, params)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    for place in (path, folder):  # what would be loaded is known from the headers alone
        tree = abstract_model(place, dtype, kept)[1]
        assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree) == jax.tree.map(
            lambda leaf: (leaf.shape, leaf.dtype), params
        )
    if kept:
        _same(load_model(folder, dtype)[1], load_params(path, moe_config, dtype))
    else:
        with pytest.raises(WeightsError, match="no float8 experts to keep"):
            load_model(folder, dtype, quantized=True)
