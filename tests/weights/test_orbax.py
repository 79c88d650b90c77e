"""Converted checkpoints: bit-equal round trips, and nothing half-written that looks whole."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.models.moondream.params import Form
from jaxphoton.models.moondream.reading import load_config
from jaxphoton.weights import checksums as sums
from jaxphoton.weights.load import WeightsError
from tests.layers.forms import dense_of
from tests.weights import loading
from tests.weights.loading import load_model, load_params


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
    folder = loading.save(tmp_path / "deep" / "out", params, mini_config, tokenizer)
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
    folder = loading.save(tmp_path / "out", params, mini_config)
    restored = loading.restore(folder, mini_config, asked)
    features = restored.region.coord_features
    assert features.dtype == jnp.float32
    np.testing.assert_array_equal(features, params.region.coord_features)
    cast = np.asarray(dense_of(params.text.lm_head_w).matrix).astype(jnp.dtype(asked))
    assert np.asarray(dense_of(restored.text.lm_head_w).matrix).tobytes() == cast.tobytes()


def test_sharded_restore(tmp_path, source, mini_config):
    params = load_params(source, mini_config)
    folder = loading.save(tmp_path / "out", params, mini_config)
    replicated = jax.sharding.NamedSharding(jax.make_mesh((1,), ("data",)), jax.sharding.PartitionSpec())
    restored = loading.restore(folder, mini_config, jnp.bfloat16, replicated)
    assert all(leaf.sharding == replicated for leaf in jax.tree.leaves(restored))
    assert _bytes(restored) == _bytes(params)
    device = jax.devices()[-1]
    restored = loading.restore(folder, mini_config, jnp.bfloat16, device)
    assert all(leaf.devices() == {device} for leaf in jax.tree.leaves(restored))


def test_full_folders_are_refused(tmp_path, source, mini_config):
    params = load_params(source, mini_config)
    with pytest.raises(WeightsError, match="not an empty folder"):
        loading.save(source.parent, params, mini_config)
    with pytest.raises(WeightsError, match="not an empty folder"):
        loading.save(source, params, mini_config)
    assert [path.name for path in source.parent.iterdir()] == ["model.safetensors"]
    (tmp_path / "empty").mkdir()
    loading.save(tmp_path / "empty", params, mini_config)


def test_failures_leave_nothing(tmp_path, source, mini_config):
    params = load_params(source, mini_config)
    out = tmp_path / "out"
    with pytest.raises(WeightsError, match="cannot be written"):
        loading.save(out, params, mini_config, tmp_path / "absent.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]
    other = dataclasses.replace(mini_config, text=dataclasses.replace(mini_config.text, vocab_size=41))
    with pytest.raises(WeightsError, match="not those of the settings"):
        loading.save(out, params, other)
    assert not out.exists()


def test_damaged_checkpoints(tmp_path, source, mini_config):
    params = load_params(source, mini_config)
    folder = loading.save(tmp_path / "out", params, mini_config)
    other = dataclasses.replace(mini_config, text=dataclasses.replace(mini_config.text, vocab_size=41))
    with pytest.raises(WeightsError, match=r"3 leaves do not fit .*text.lm_head_b \(\(40,\) instead of \(41,\)\)"):
        loading.restore(folder, other)
    with pytest.raises(WeightsError, match="no params/"):
        loading.restore(source.parent, mini_config)
    shutil.rmtree(folder / "params")
    (folder / "params").mkdir()
    with pytest.raises(WeightsError, match="params.*: no such file"):
        loading.restore(folder, mini_config)
    _without_checksums(folder)
    with pytest.raises(WeightsError, match="not a readable"):
        loading.restore(folder, mini_config)


def _without_checksums(folder) -> None:
    """As versions before the checksums wrote it."""
    stored = json.loads((folder / "config.json").read_text())
    del stored["checksums"]
    (folder / "config.json").write_text(json.dumps(stored))


def test_folders_without_checksums_load(tmp_path, source, mini_config):
    params = load_params(source, mini_config)
    folder = loading.save(tmp_path / "out", params, mini_config)
    _without_checksums(folder)
    assert _bytes(load_model(folder)[1]) == _bytes(params)


@pytest.fixture(scope="module")
def converted(tmp_path_factory, write_file, published_tensors, mini_config):
    """A converted checkpoint, and its files but `config.json`."""
    place = tmp_path_factory.mktemp("converted")
    tensors = published_tensors(mini_config, Form())
    (place / "tokenizer.json").write_text('{"a": 1}')
    params = load_params(write_file(place / "model.safetensors", tensors), mini_config)
    folder = loading.save(place / "out", params, mini_config, place / "tokenizer.json")
    return folder, sorted(file for file in folder.rglob("*") if file.is_file() and file.name != "config.json")


@given(data=st.data())
def test_a_damaged_file_is_noticed_and_named(converted, data):
    folder, files = converted
    file = data.draw(st.sampled_from(files))
    whole = file.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = data.draw(
        st.sampled_from(
            [
                whole[:at],
                whole + b"\0",
                whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :],
                whole[:at] + bytes(len(whole) - at) if any(whole[at:]) else whole[:at],
                None,
            ]
        )
    )
    try:
        file.unlink()
        if damaged is not None:
            file.write_bytes(damaged)
        with pytest.raises(WeightsError, match="damaged|no such file") as caught:
            load_model(folder)
        assert str(file) in str(caught.value)
    finally:
        file.write_bytes(whole)


def test_checksums_cover_every_block(tmp_path, monkeypatch):
    monkeypatch.setattr(sums, "BLOCK", 1 << 20)
    monkeypatch.setattr(sums, "PIECE", 1 << 10)
    data = np.random.default_rng(0).bytes((5 << 20) + 7)
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "empty").touch()
    recorded = json.loads(json.dumps(sums.checksums(tmp_path, ["a", "empty"])))
    blocks = [zlib.crc32(data[start : start + (1 << 20)]) for start in range(0, len(data), 1 << 20)]
    assert recorded == {"a": [len(data), *blocks], "empty": [0]}
    sums.verify(tmp_path, recorded)
    for at in range(0, len(data), 1_000_003):
        (tmp_path / "a").write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(WeightsError, match=f"{tmp_path / 'a'}: damaged"):
            sums.verify(tmp_path, recorded)


@pytest.mark.parametrize("recorded", [None, [], {"a": 3}, {"a": []}, {"a": [1.0]}, {"../a": [0]}, {"/a": [0]}, 3])
def test_damaged_checksums(tmp_path, recorded):
    with pytest.raises(WeightsError, match="checksums in config.json are damaged"):
        sums.verify(tmp_path, recorded)


def test_links_are_followed_and_nothing_but_files_is_read(tmp_path, source, mini_config):
    folder = loading.save(tmp_path / "out", load_params(source, mini_config), mini_config)
    largest = max((folder / "params").rglob("*"), key=lambda file: file.stat().st_size)
    largest.rename(tmp_path / "blob")
    largest.symlink_to(tmp_path / "blob")  # as in a cache of downloads
    load_model(folder)
    os.mkfifo(folder / "params" / "pipe")
    with pytest.raises(WeightsError, match="pipe: not a regular file"):
        load_model(folder)


def test_faults_of_the_storage(tmp_path, source, mini_config, monkeypatch):
    folder = loading.save(tmp_path / "out", load_params(source, mini_config), mini_config)

    # Faked: after a real fault tensorstore's other reads report to an event loop that orbax has closed by then.
    def fail(*args, **options):
        raise ValueError("NOT_FOUND: error reading chunk")

    monkeypatch.setattr(ocp.PyTreeCheckpointer, "restore", fail)
    with pytest.raises(WeightsError, match="params: cannot be restored: NOT_FOUND"):
        loading.restore(folder, mini_config)
