"""Tensor names of every generation of files, and what is missing, unknown or unused."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxphoton.models.joycaption.device import JoyCaptionNetwork
from jaxphoton.models.joycaption.names import canonical_names, placements
from jaxphoton.models.joycaption.params import abstract
from jaxphoton.models.joycaption.reading import config_from_dict
from jaxphoton.models.naming import WeightsError
from jaxphoton.weights.load import load_params
from tests.models.joycaption.drawn import REAL, bound_to

HEAD = "language_model.lm_head.weight"


def test_four_generations_of_names_mean_the_same(folder, config):
    rows = json.loads((folder / "tensor_names.json").read_text())["rows"]
    tables = []
    for names in zip(*rows, strict=True):
        sources, unknown = canonical_names(config, names)
        assert not unknown
        tables.append({source.name: place for place, source in sources.items()})
    for row in rows:
        assert len({table.get(name) for name, table in zip(row, tables, strict=True)}) == 1
    placed = {place.name for place in placements(config)}
    assert set(tables[0].values()) == {name for name in placed if "layers.1" not in name}


def test_files_of_both_generations_load_alike(folder, bound, params):
    newer = load_params(folder / "model_v5_names.safetensors", bound, jnp.float32)
    jax.tree.map(np.testing.assert_array_equal, newer, params)


def test_one_file_cannot_have_a_tensor_twice(config, folder):
    names = [*load_file(folder / "model.safetensors"), "lm_head.weight"]
    with pytest.raises(WeightsError, match=r"are both 'lm_head\.weight'"):
        canonical_names(config, names)


def test_a_tied_head_is_the_embeddings(folder, config, bound, params, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    del tensors[HEAD]
    save_file(tensors, file := tmp_path / "tied.safetensors")
    with pytest.raises(WeightsError, match=r"1 missing: lm_head\.weight"):
        load_params(file, bound, jnp.float32)
    tied = bound_to(dataclasses.replace(config, tie_word_embeddings=True))
    loaded = load_params(file, tied, jnp.float32)
    np.testing.assert_array_equal(loaded.text.lm_head_w.matrix, params.text.wte)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("language_model.model.layers.9.mlp.up_proj.weight", "1 unexpected: .*layers.9"),
        ("vision_tower.vision_model.encoder.layers.3.mlp.fc1.bias", "1 unexpected: .*layers.3"),
        ("language_model.model.layers.0.self_attn.q_proj.lora_A.weight", "1 unexpected: .*lora_A"),
    ],
)
def test_what_no_table_knows_is_named(folder, bound, tmp_path, name, fault):
    tensors = load_file(folder / "model.safetensors") | {name: np.zeros(2, np.float32)}
    save_file(tensors, file := tmp_path / "more.safetensors")
    with pytest.raises(WeightsError, match=fault):
        load_params(file, bound, jnp.float32)


def test_another_checkpoint_is_refused(config):
    with pytest.raises(WeightsError, match="not a JoyCaption checkpoint"):
        canonical_names(config, ["model.text.blocks.0.ln.weight"])


def test_the_published_model_has_its_size_and_few_leaves():
    config = config_from_dict(REAL)
    shapes = abstract(config)
    # Llama 3.1 8B as it is published; 26 of 27 layers of the vision encoder, and the projector.
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes.text)) == 8_030_261_248
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes.vision)) == 419_249_440
    assert len(jax.tree.leaves(shapes.text)) == 4 * 32 + 4
    counts = JoyCaptionNetwork(config).counts()
    assert (counts["kv_heads"], counts["vision_mlp"]) == (8, 16)
