"""Weights in few bits of both families around the decoder: quantized at load, as other programs store them, by size."""

from __future__ import annotations

import json
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxphoton.config.quantization import QUANTIZATIONS
from jaxphoton.files import read_json
from jaxphoton.layers.grouped import Grouped
from jaxphoton.layers.spec import by_path, nbytes, weights_by_path
from jaxphoton.layers.weight import Dense, RowScaled
from jaxphoton.models import registry
from jaxphoton.models.forms import quantized_tree
from jaxphoton.models.joycaption import family as joycaption
from jaxphoton.models.smolvlm import family as smolvlm
from jaxphoton.models.smolvlm import reading
from jaxphoton.weights.load import WeightsError, load_model, load_params
from tests.models.joycaption.drawn import REAL
from tests.weights.test_few_bits import BF16, float8, int4, int8, int8_packed

FOLDERS = ("joycaption-tiny", "smolvlm2-tiny")


def loaded(folder, **options):
    """The family and the parameters of a folder."""
    data = read_json(folder / "config.json", 1 << 20)
    module = joycaption if data["model_type"] == "llava" else smolvlm
    family = module.bound(reading.beside(folder) | data if module is smolvlm else data)
    return family, load_params(folder, family, jnp.float32, **options)


@pytest.mark.parametrize("kind", ["int4", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("int8", "float8"))])
@pytest.mark.parametrize("name", FOLDERS)
def test_every_large_matrix_is_near_what_it_was_and_the_rest_is_the_same(goldens, name, kind):
    (family, plain), (_, small) = (loaded(goldens / name, quantize=how) for how in (None, kind))
    plain, small = weights_by_path(plain), weights_by_path(small)
    few = {path for path, node in small.items() if isinstance(node, RowScaled | Grouped)}
    assert few == set(family.tensors.uses())
    layers = [path for path in few if path.startswith("text.layers")]
    assert {type(small[path]) for path in layers} == {Grouped if "int4" in kind else RowScaled}
    for path, node in plain.items():
        if path not in few:
            jax.tree.map(np.testing.assert_array_equal, node, small[path])
            continue
        exact, near = np.asarray(node.matrix), np.asarray(small[path].dense(jnp.float32).matrix)
        assert 0 < np.abs(exact - near).mean() < (0.12 if path in layers else 0.01) * np.abs(exact).mean()


def stored(source, target, form):
    """The folder of a model whose decoder another program has stored in a form, and the values of its matrices."""
    target.mkdir()
    for file in source.glob("*.json"):
        shutil.copy(file, target)
    random, tensors, values = np.random.default_rng(0), {}, {}
    for name, tensor in load_file(source / "model.safetensors").items():
        if "layers" in name and "vision" not in name and name.endswith("_proj.weight"):
            module = name.removesuffix(".weight")
            parts, values[module] = form(random, tensor.shape)
            tensors |= {module + end: part for end, part in parts.items()}
        else:
            tensors[name] = tensor
    save_file(tensors, target / "model.safetensors")
    return values


@pytest.mark.parametrize("form", [int4, int8, int8_packed, float8])
@pytest.mark.parametrize("name", FOLDERS)
def test_files_of_other_programs_stay_as_they_are_stored(goldens, tmp_path, name, form):
    """q, k and v, gate and values, are one matrix each: of one form they stay in few bits together."""
    values = stored(goldens / name, tmp_path / "model", form)
    family, params = loaded(tmp_path / "model")
    nodes = weights_by_path(params)
    kept = {path for path, node in nodes.items() if isinstance(node, RowScaled | Grouped)}
    assert kept == {path for path in family.tensors.uses() if path.startswith("text.layers")}
    assert {type(nodes[path]) for path in kept} == {Grouped if form is int4 else RowScaled}
    places = {place.name: place for place in family.tensors.placements(None)}
    for module, wanted in values.items():
        place = places[f"{family.tensors.adapters.module(module)}.weight"]
        found = np.asarray(nodes[place.leaf].dense(jnp.float32).matrix)[place.index]
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)
    plain = loaded(tmp_path / "model", quantize="none")[1]
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one.matrix, two.dense(jnp.float32).matrix, atol=1e-6),
                 plain.text.layers, params.text.layers, is_leaf=lambda node: isinstance(node, Dense))  # fmt: skip


def test_what_is_not_read_is_named(goldens, tmp_path):
    source = goldens / "joycaption-tiny"
    shutil.copytree(source, tmp_path / "nf4")
    settings = json.loads((source / "config.json").read_text())
    settings["quantization_config"] = {"quant_method": "bitsandbytes", "bnb_4bit_quant_type": "nf4"}
    (tmp_path / "nf4" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match=r"config\.json: weights of 'bitsandbytes' are not read; .*--quantize makes"):
        load_model(tmp_path / "nf4")
    module = "language_model.model.layers.0.self_attn.q_proj"
    tensors = load_file(source / "model.safetensors") | {f"{module}.weight.absmax": np.zeros(4, np.uint8)}
    shutil.copytree(source, tmp_path / "names")
    save_file(tensors, tmp_path / "names" / "model.safetensors")
    with pytest.raises(WeightsError, match=rf"weights of bitsandbytes \({module}\.weight\.absmax\) are not read"):
        load_model(tmp_path / "names")


def test_the_published_size():
    """JoyCaption Beta One in gigabytes."""
    family, sizes = registry.family_of(REAL), {}
    for kind in (None, "int8", "float8", "int4", "int4-64"):
        tree = quantized_tree(family, jnp.bfloat16, kind and QUANTIZATIONS[kind])
        sizes[kind] = sum(map(nbytes, jax.tree.leaves(tree))) / 1e9
        leaves = by_path(tree)
        assert leaves["text.wte"].dtype == leaves["vision.tower.pos_emb"].dtype == BF16 == ml_dtypes.bfloat16
    wanted = {None: 16.9, "int8": 9.0, "float8": 9.0, "int4": 5.6, "int4-64": 5.7}
    assert sizes == pytest.approx(wanted, abs=0.1)
