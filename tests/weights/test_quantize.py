"""`quantize=`: matrices in few bits at load, from any form of checkpoint, and kept by converted ones."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.load_memory import measure, write_checkpoint
from jaxphoton.cli import convert
from jaxphoton.config.quantization import QUANTIZATIONS, Quantization
from jaxphoton.layers.grouped import Grouped
from jaxphoton.layers.spec import by_path, nbytes
from jaxphoton.layers.weight import Dense, RowScaled, Weight
from jaxphoton.models.forms import quantized_tree, wanted_forms
from jaxphoton.models.moondream.params import Form
from jaxphoton.models.moondream.reading import config_to_dict
from jaxphoton.models.registry import named_family
from jaxphoton.weights import placing
from jaxphoton.weights.load import WeightsError, abstract_model, load_model
from tests.weights import loading


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_file, published_tensors, moe_config, mini_tokenizer) -> Path:
    """A model with a dense layer and layers with experts."""
    place = tmp_path_factory.mktemp("source")
    write_file(place / "model.safetensors", published_tensors(moe_config, Form()))
    (place / "config.json").write_text(json.dumps(config_to_dict(moe_config)))
    (place / "tokenizer.json").write_text(mini_tokenizer)
    return place


def weights(params) -> dict[str, Weight]:
    nodes, tree = jax.tree.flatten(params, is_leaf=lambda node: isinstance(node, Weight))
    names = by_path(jax.tree.unflatten(tree, list(range(len(nodes)))))
    return {name: nodes[i] for name, i in names.items() if isinstance(nodes[i], Weight)}


def same(one, two) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("kind", [pytest.param("float8", marks=pytest.mark.slow), "int4"])
def test_every_large_matrix_is_near_what_it_was_and_the_rest_is_the_same(folder, kind, monkeypatch):
    monkeypatch.setattr(placing, "PIECE", 100)  # numbers: every matrix comes in several pieces
    (family, plain), (_, small) = load_model(folder), load_model(folder, quantize=kind)
    monkeypatch.undo()
    same(load_model(folder, quantize=kind)[1], small)
    few = {name for name, weight in weights(small).items() if not isinstance(weight, Dense)}
    assert few == family.tensors.uses().keys() and all(name.startswith(("text.", "vision.")) for name in few)
    bounds = {"float8": 0.06, "int4": 0.3}
    for name, weight in weights(small).items():
        wanted, got = (np.asarray(each.dense(jnp.float32).matrix) for each in (weights(plain)[name], weight))
        error = np.abs(got - wanted).max() / np.abs(wanted).max()
        assert error <= bounds[kind] and (error > 0) == (name in few), name
    left = {name: leaf for name, leaf in by_path(plain).items() if name not in few}
    found = by_path(small)
    assert all(np.array_equal(found[name], leaf) and found[name].dtype == leaf.dtype for name, leaf in left.items())
    shapes = abstract_model(folder, quantize=kind)[1]
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == jax.tree.map(lambda x: (x.shape, x.dtype), small)
    made = quantized_tree(family, jnp.bfloat16, QUANTIZATIONS[kind])
    assert jax.tree.map(lambda x: x.shape, made) == jax.tree.map(lambda x: x.shape, small)


def test_each_use_of_a_matrix_has_its_own_kind(folder):
    params = load_model(folder, quantize=Quantization(layers="int4", head=None, vision=None))[1]
    few = {name: weight for name, weight in weights(params).items() if not isinstance(weight, Dense)}
    assert few.keys() == {f"text.layers.{i}.{side}_w" for i in range(3) for side in ("in", "out")}
    assert all(isinstance(weight, Grouped) for weight in few.values())


def test_converted_checkpoints_keep_few_bits_and_can_be_brought_to_many(folder, tmp_path, capsys):
    kind = "int4"
    parser = argparse.ArgumentParser()
    convert.add_parser(parser.add_subparsers())
    args = parser.parse_args(["convert", str(folder), str(tmp_path / "small"), "--quantize", kind])
    assert args.run(args) == 0
    loaded = load_model(folder, quantize=kind)[1]
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(loaded))
    plain = sum(leaf.size for leaf in jax.tree.leaves(load_model(folder)[1]))
    assert f"{plain:,} parameters" in (told := capsys.readouterr().out) and f"{held:,} bytes" in told
    same(load_model(tmp_path / "small")[1], loaded)
    same(load_model(tmp_path / "small", quantize=kind)[1], loaded)
    shapes = abstract_model(tmp_path / "small")[1]
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == jax.tree.map(lambda x: (x.shape, x.dtype), loaded)
    wide = load_model(tmp_path / "small", quantize="none")[1]
    for name, weight in weights(wide).items():
        assert isinstance(weight, Dense)
        assert np.array_equal(weight.matrix, weights(loaded)[name].dense(jnp.bfloat16).matrix), name


def test_a_plain_converted_checkpoint_is_quantized_when_it_is_loaded(folder, tmp_path):
    family, params = load_model(folder)
    loading.save(tmp_path / "plain", params, family.config)
    same(load_model(tmp_path / "plain", quantize="int4")[1], load_model(folder, quantize="int4")[1])


def test_float8_experts_stay_where_the_rest_is_quantized(tmp_path, write_file, moe_config, float8_tensors):
    path = write_file(tmp_path / "a.safetensors", float8_tensors)
    kept, small = (
        weights(loading.load_params(path, moe_config, **how)) for how in ({"quantized": True}, {"quantize": "int8"})
    )
    for name in ("text.layers.1.experts.fc1_w", "text.layers.2.experts.fc2_w"):
        one, two = kept[name], small[name]
        assert isinstance(one, RowScaled) and isinstance(two, RowScaled)
        assert np.array_equal(one.matrix.view(jnp.uint8), two.matrix.view(jnp.uint8))
        assert isinstance(weights(loading.load_params(path, moe_config, quantize="none"))[name], Dense)


def test_faults(folder):
    with pytest.raises(WeightsError, match="quantize must be one of int8, float8, int4, int4-64, none, got 'int3'"):
        load_model(folder, quantize="int3")
    with pytest.raises(WeightsError, match="cannot be kept where nothing"):
        load_model(folder, quantized=True, quantize="none")


def test_what_a_step_reads_of_moondream2_and_what_the_model_holds():
    family = named_family("moondream2")
    plain = family.network.abstract(jnp.bfloat16)
    for kind, step, all_of_it in (("int8", 0.52, 0.6), ("float8", 0.52, 0.6), ("int4", 0.28, 0.45)):
        small = quantized_tree(family, jnp.bfloat16, QUANTIZATIONS[kind])
        read = [sum(map(nbytes, jax.tree.leaves((tree.text.layers, tree.text.lm_head_w)))) for tree in (small, plain)]
        held = [sum(map(nbytes, jax.tree.leaves(tree))) for tree in (small, plain)]
        assert read[0] < step * read[1] and held[0] < all_of_it * held[1]
    forms = wanted_forms(family, plain, None, QUANTIZATIONS["int8"])
    assert "region.fc1_w" not in forms and "vision.patch_w" not in forms


def test_the_device_never_holds_more_than_the_small_form_and_a_piece():
    """Of a model of some megabytes, loaded by a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        whole = write_checkpoint(Path(scratch), "moondream-0.5b", layers=2)
        report = measure(Path(scratch), "int4")
    assert report["samples"] > 20
    assert report["peak"] < report["held"] + 4 * placing.PIECE < whole
