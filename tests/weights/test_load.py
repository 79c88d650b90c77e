"""From files to parameters: both naming schemes, casts, shards, and one error for everything that does not fit."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxphoton.config import ConfigError
from jaxphoton.layers.spec import by_path
from jaxphoton.models.moondream.names import canonical_names, placements
from jaxphoton.models.moondream.params import abstract
from jaxphoton.models.moondream.reading import config_to_dict, load_config
from jaxphoton.weights.load import WeightsError
from jaxphoton.weights.safetensors import DTYPES, TensorFile
from tests.layers.forms import dense_of
from tests.weights.loading import load_model, load_params


def _same(one, two) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def _fits(params, config, dtype) -> None:
    tree = abstract(config, dtype)
    assert jax.tree.structure(params) == jax.tree.structure(tree)
    for leaf, wanted in zip(jax.tree.leaves(params), jax.tree.leaves(tree), strict=True):
        assert (leaf.shape, leaf.dtype) == (wanted.shape, wanted.dtype)


@pytest.mark.smoke
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_golden_checkpoint(goldens, dtype):
    config, params = load_model(goldens / "md2-tiny", dtype)
    _fits(params, config, dtype)
    stored = load_file(goldens / "md2-tiny" / "model.safetensors")
    leaves = by_path(params)
    for place in placements(config):
        wanted = stored.pop(f"model.{place.name}").astype(np.float32)
        wanted = wanted[0] if place.name == "vision.pos_emb" else wanted
        np.testing.assert_array_equal(np.asarray(leaves[place.leaf], np.float32)[place.index], wanted)
    assert not stored


def test_golden_checkpoint_under_training_names(goldens, tmp_path, write_file, training_style):
    folder = goldens / "md2-tiny"
    config = load_config(folder / "config.json")
    file = TensorFile(folder / "model.safetensors")
    renamed = training_style({name: file.read(name) for name in file.entries})
    assert renamed["region_model.coordinate_features.weight"].shape == (32, 1)
    assert "text_model.transformer.h.3.mlp.fc1.weight" in renamed
    path = write_file(tmp_path / "training.safetensors", renamed)
    _same(load_params(path, config), load_params(folder, config))


def test_golden_float8_file_is_read(goldens):
    file = TensorFile(goldens / "md3-tiny" / "model_photon_fp8.safetensors")
    experts = file.read("text_model.transformer.h.1.mlp.experts.weight")
    assert experts.dtype == ml_dtypes.float8_e4m3fn
    # The scale of a row is chosen from its largest weight, so rows reach far into the type's range of 448.
    assert 100 < np.abs(experts.astype(np.float32)).max() <= 448
    sources, unknown = canonical_names(file.entries)
    assert sources["text.blocks.2.mlp.fc2.weight"].name == "text_model.transformer.h.2.mlp.output_experts.weight"
    assert not unknown


def test_both_schemes_give_the_same_parameters(tmp_path, write_file, mini_config, mini_tensors, training_style):
    published = write_file(tmp_path / "published.safetensors", mini_tensors)
    compiled = {
        name.replace("transformer.h.", "transformer._orig_mod.h."): t
        for name, t in training_style(mini_tensors).items()
    }
    training = write_file(tmp_path / "training.safetensors", compiled)
    one = load_params(published, mini_config)
    _same(one, load_params(training, mini_config))
    stored = mini_tensors["model.text.blocks.2.mlp.fc2.bias"]
    np.testing.assert_array_equal(np.asarray(one.text.out_b)[2, 1], stored)
    np.testing.assert_array_equal(np.asarray(one.vision.ln)[1, 1, 0], mini_tensors["model.vision.blocks.1.ln2.weight"])
    np.testing.assert_array_equal(
        np.asarray(dense_of(one.region.fc1_w).matrix)[24:], mini_tensors["model.region.size_decoder.fc1.weight"]
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float16])
@pytest.mark.parametrize("stored", ["BF16", "F16", "F32", "F64", "F8_E4M3", "F8_E5M2"])
def test_casts(tmp_path, write_file, mini_config, mini_tensors, stored, dtype):
    tensors = {name: tensor.astype(np.float32).astype(DTYPES[stored]) for name, tensor in mini_tensors.items()}
    params = load_params(write_file(tmp_path / "a.safetensors", tensors), mini_config, dtype)
    _fits(params, mini_config, dtype)
    wte = tensors["model.text.wte"].astype(np.float32).astype(jnp.dtype(dtype))
    assert np.asarray(params.text.wte).tobytes() == wte.tobytes()
    features = tensors["model.region.size_features"].astype(np.float32)
    np.testing.assert_array_equal(np.asarray(params.region.size_features), features)


@pytest.mark.parametrize("dtype", [np.int8, np.float64, ml_dtypes.float8_e4m3fn])
def test_other_target_types_are_refused(tmp_path, mini_config, dtype):
    with pytest.raises(WeightsError, match="cannot be loaded as"):
        load_params(tmp_path, mini_config, dtype)


def test_shards(tmp_path, write_file, mini_config, mini_tensors):
    whole = write_file(tmp_path / "whole.safetensors", mini_tensors)
    names = list(mini_tensors)
    shards = {f"model-{i}-of-3.safetensors": names[i::3] for i in range(3)}
    for shard, held in shards.items():
        write_file(tmp_path / "sharded" / shard, {name: mini_tensors[name] for name in held})
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    index = tmp_path / "sharded" / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    (tmp_path / "sharded" / "config.json").write_text(json.dumps(config_to_dict(mini_config)))
    config, params = load_model(tmp_path / "sharded")
    assert config == mini_config
    _same(params, load_params(whole, mini_config))


def test_one_error_names_everything(tmp_path, write_file, mini_config, mini_tensors):
    del mini_tensors["model.text.wte"], mini_tensors["model.vision.blocks.1.attn.qkv.bias"]
    mini_tensors["model.text.blocks.3.ln.weight"] = np.ones(16, np.float32)
    mini_tensors["model.text.blocks.0.attn.qkv.lora_A"] = np.ones(3, np.float32)
    mini_tensors["model.text.lm_head.weight"] = np.ones((16, 40), np.float32)
    mini_tensors["model.text.lm_head.bias"] = np.ones(40, np.int32)
    path = write_file(tmp_path / "bad.safetensors", mini_tensors)
    with pytest.raises(WeightsError) as caught:
        load_params(path, mini_config)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "2 missing: vision.blocks.1.attn.qkv.bias, text.wte" in message
    assert "2 unexpected: model.text.blocks.3.ln.weight, model.text.blocks.0.attn.qkv.lora_A" in message
    assert "model.text.lm_head.weight ([16, 40] instead of [40, 16])" in message
    assert "model.text.lm_head.bias (int32, not a floating type)" in message


def test_long_lists_are_cut(tmp_path, write_file, mini_config, mini_tensors):
    only = {name: tensor for name, tensor in mini_tensors.items() if "text.blocks.0" in name}
    path = write_file(tmp_path / "bad.safetensors", only)
    with pytest.raises(WeightsError, match=rf"{len(mini_tensors) - len(only)} missing: .*, and \d+ more") as caught:
        load_params(path, mini_config)
    assert len(str(caught.value)) < 2000


def test_features_of_training_files_must_be_transposed(tmp_path, write_file, mini_config, mini_tensors, training_style):
    renamed = training_style(mini_tensors)
    renamed["region_model.size_features.weight"] = renamed["region_model.size_features.weight"].T
    path = write_file(tmp_path / "a.safetensors", renamed)
    with pytest.raises(WeightsError, match=r"size_features.weight \(\[2, 5\] instead of \[5, 2\]\)"):
        load_params(path, mini_config)


def test_buffers_do_no_harm(tmp_path, write_file, mini_config, mini_tensors):
    path = write_file(tmp_path / "a.safetensors", mini_tensors)
    buffers = {
        "model.text.blocks.0.kv_cache.k_cache": np.ones(2, np.int8),
        "model.text.freqs_cis": np.ones(3, np.float32),
    }
    more = write_file(tmp_path / "b.safetensors", {**mini_tensors, **buffers})
    _same(load_params(path, mini_config), load_params(more, mini_config))


def test_parameters_outlive_their_file(tmp_path, write_file, mini_config, mini_tensors):
    path = write_file(tmp_path / "a.safetensors", mini_tensors)
    params = load_params(path, mini_config)
    before = [np.array(leaf) for leaf in jax.tree.leaves(params)]
    with open(path, "r+b") as file:  # in place: a mapped page would change
        file.write(b"\xff" * path.stat().st_size)
    for leaf, old in zip(jax.tree.leaves(params), before, strict=True):
        np.testing.assert_array_equal(np.asarray(leaf), old)


def test_placing(tmp_path, write_file, mini_config, mini_tensors):
    path = write_file(tmp_path / "a.safetensors", mini_tensors)
    device = jax.devices()[-1]
    replicated = jax.sharding.NamedSharding(jax.make_mesh((1,), ("data",)), jax.sharding.PartitionSpec())
    for place in (device, replicated):
        params = load_params(path, mini_config, sharding=place)
        _same(params, load_params(path, mini_config))
        for leaf in jax.tree.leaves(params):
            assert leaf.sharding == place if place is replicated else leaf.devices() == {device}


def test_a_file_takes_the_settings_beside_it(tmp_path, write_file, mini_config, mini_tensors):
    path = write_file(tmp_path / "weights.safetensors", mini_tensors)
    with pytest.raises(ConfigError, match="config.json"):
        load_model(path)
    (tmp_path / "config.json").write_text(json.dumps(config_to_dict(mini_config)))
    config, params = load_model(path, jnp.float32)
    assert config == mini_config
    _fits(params, config, jnp.float32)
    with pytest.raises(WeightsError, match="no such file or folder"):
        load_model(tmp_path / "absent")


def test_the_shapes_of_another_model(tmp_path, write_file, mini_config, mini_tensors):
    other = dataclasses.replace(mini_config, text=dataclasses.replace(mini_config.text, vocab_size=41))
    path = write_file(tmp_path / "a.safetensors", mini_tensors)
    with pytest.raises(WeightsError, match=r"3 misshapen: model.text.wte \(\[40, 16\] instead of \[41, 16\]\)"):
        load_params(path, other)
