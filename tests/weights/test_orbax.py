"""Converted checkpoints: bit-equal round trips, and nothing half-written that looks whole."""

from __future__ import annotations

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxphoton.config import load_config
from jaxphoton.weights import orbax
from jaxphoton.weights.load import WeightsError, load_model, load_params


@pytest.fixture
def source(tmp_path, write_file, mini_tensors):
    return write_file(tmp_path / "source" / "model.safetensors", mini_tensors)


def _bytes(params) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(params)]


@pytest.mark.smoke
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_round_trip(tmp_path, source, mini_config, dtype):
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text('{"a": 1}')
    params = load_params(source, mini_config, dtype)
    folder = orbax.save(tmp_path / "deep" / "out", params, mini_config, tokenizer)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "params", "tokenizer.json"]
    assert [path.name for path in folder.parent.iterdir()] == ["out"], "no scratch is left"
    assert (folder / "tokenizer.json").read_text() == '{"a": 1}'
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == jnp.dtype(dtype).name
    config, restored = load_model(folder, dtype)
    assert config == mini_config == load_config(folder / "config.json")
    assert jax.tree.structure(restored) == jax.tree.structure(params)
    assert [leaf.dtype for leaf in jax.tree.leaves(restored)] == [leaf.dtype for leaf in jax.tree.leaves(params)]
    assert _bytes(restored) == _bytes(params)


@pytest.mark.parametrize(("stored", "asked"), [(jnp.float32, jnp.bfloat16), (jnp.bfloat16, jnp.float32)])
def test_cast_on_restore(tmp_path, source, mini_config, stored, asked):
    params = load_params(source, mini_config, stored)
    params = jax.tree.map(lambda leaf: leaf * jnp.asarray(1.001, leaf.dtype), params)
    folder = orbax.save(tmp_path / "out", params, mini_config)
    restored = orbax.restore(folder, mini_config, asked)
    features = restored.region.coord_features
    assert features.dtype == jnp.float32
    np.testing.assert_array_equal(features, params.region.coord_features)
    cast = np.asarray(params.text.lm_head_w).astype(jnp.dtype(asked))
    assert np.asarray(restored.text.lm_head_w).tobytes() == cast.tobytes()


def test_sharded_restore(tmp_path, source, mini_config):
    params = load_params(source, mini_config)
    folder = orbax.save(tmp_path / "out", params, mini_config)
    replicated = jax.sharding.NamedSharding(jax.make_mesh((1,), ("data",)), jax.sharding.PartitionSpec())
    restored = orbax.restore(folder, mini_config, jnp.bfloat16, replicated)
    assert all(leaf.sharding == replicated for leaf in jax.tree.leaves(restored))
    assert _bytes(restored) == _bytes(params)
    device = jax.devices()[-1]
    restored = orbax.restore(folder, mini_config, jnp.bfloat16, device)
    assert all(leaf.devices() == {device} for leaf in jax.tree.leaves(restored))


def test_full_folders_are_refused(tmp_path, source, mini_config):
    params = load_params(source, mini_config)
    with pytest.raises(WeightsError, match="not an empty folder"):
        orbax.save(source.parent, params, mini_config)
    with pytest.raises(WeightsError, match="not an empty folder"):
        orbax.save(source, params, mini_config)
    assert [path.name for path in source.parent.iterdir()] == ["model.safetensors"]
    (tmp_path / "empty").mkdir()
    orbax.save(tmp_path / "empty", params, mini_config)


def test_failures_leave_nothing(tmp_path, source, mini_config):
    params = load_params(source, mini_config)
    out = tmp_path / "out"
    with pytest.raises(WeightsError, match="cannot be written"):
        orbax.save(out, params, mini_config, tmp_path / "absent.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]
    other = dataclasses.replace(mini_config, text=dataclasses.replace(mini_config.text, vocab_size=41))
    with pytest.raises(WeightsError, match="not those of the settings"):
        orbax.save(out, params, other)
    assert not out.exists()


def test_damaged_checkpoints(tmp_path, source, mini_config):
    params = load_params(source, mini_config)
    folder = orbax.save(tmp_path / "out", params, mini_config)
    other = dataclasses.replace(mini_config, text=dataclasses.replace(mini_config.text, vocab_size=41))
    with pytest.raises(WeightsError, match=r"3 leaves do not fit .*text.lm_head_b \(\(40,\) instead of \(41,\)\)"):
        orbax.restore(folder, other)
    with pytest.raises(WeightsError, match="no params/"):
        orbax.restore(source.parent, mini_config)
    shutil.rmtree(folder / "params")
    (folder / "params").mkdir()
    with pytest.raises(WeightsError, match="not a readable"):
        orbax.restore(folder, mini_config)


def test_faults_of_the_storage(tmp_path, source, mini_config, monkeypatch):
    folder = orbax.save(tmp_path / "out", load_params(source, mini_config), mini_config)

    # Faked: after a real fault tensorstore's other reads report to an event loop that orbax has closed by then.
    def fail(*args):
        raise ValueError("NOT_FOUND: error reading chunk")

    monkeypatch.setattr(ocp.StandardCheckpointer, "restore", fail)
    with pytest.raises(WeightsError, match="params: cannot be restored: NOT_FOUND"):
        orbax.restore(folder, mini_config)
