"""Tensor names of published files: what is missing, unknown, unused or tied; and the published sizes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxphoton.models.naming import WeightsError
from jaxphoton.models.smolvlm.device import SmolVLMNetwork
from jaxphoton.models.smolvlm.names import canonical_names, placements
from jaxphoton.models.smolvlm.params import abstract
from jaxphoton.models.smolvlm.reading import config_from_dict
from jaxphoton.weights.load import load_params
from tests.models.smolvlm.drawn import REAL

HEAD = "lm_head.weight"


def test_every_tensor_of_a_file_has_its_place(folder, config):
    names = list(load_file(folder / "model.safetensors"))
    sources, unknown = canonical_names(names)
    assert not unknown and set(sources) == {place.name for place in placements(config)}
    assert sorted(source.name for source in sources.values()) == sorted(names)


def test_names_without_their_first_part_load_alike_and_buffers_are_left_out(folder, bound, params, tmp_path):
    tensors = {name.removeprefix("model."): each for name, each in load_file(folder / "model.safetensors").items()}
    tensors |= {f"text_model.layers.{i}.self_attn.rotary_emb.inv_freq": np.zeros(8, np.float32) for i in range(3)}
    tensors["vision_model.embeddings.position_ids"] = np.arange(36)
    save_file(tensors, file := tmp_path / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, load_params(file, bound, jnp.float32), params)


def test_a_head_that_is_not_there_is_the_embeddings(folder, bound, params, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    assert not np.array_equal(tensors.pop(HEAD), tensors["model.text_model.embed_tokens.weight"])
    save_file(tensors, file := tmp_path / "tied.safetensors")
    loaded = load_params(file, bound, jnp.float32)
    np.testing.assert_array_equal(loaded.text.lm_head_w.matrix, params.text.wte)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("model.text_model.layers.9.mlp.up_proj.weight", "1 unexpected: .*layers.9"),
        ("model.vision_model.encoder.layers.3.mlp.fc1.bias", "1 unexpected: .*layers.3"),
        ("model.connector.perceiver_resampler.latents", "1 unexpected: .*perceiver_resampler"),
    ],
)
def test_what_no_table_knows_is_named(folder, bound, tmp_path, name, fault):
    tensors = load_file(folder / "model.safetensors") | {name: np.zeros(2, np.float32)}
    save_file(tensors, file := tmp_path / "more.safetensors")
    with pytest.raises(WeightsError, match=fault):
        load_params(file, bound, jnp.float32)


def test_what_is_missing_is_named(folder, bound, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.vision_model.post_layernorm.bias"]
    save_file(tensors, file := tmp_path / "fewer.safetensors")
    with pytest.raises(WeightsError, match=r"1 missing: .*vision_model\.post_layernorm\.bias"):
        load_params(file, bound, jnp.float32)


def test_another_checkpoint_is_refused():
    with pytest.raises(WeightsError, match=r"not a SmolVLM2 checkpoint: no text_model\.embed_tokens\.weight"):
        canonical_names(["model.language_model.embed_tokens.weight", "model.connector.modality_projection.proj.weight"])
    with pytest.raises(WeightsError, match=r"not a SmolVLM2 checkpoint: no connector"):
        canonical_names(["model.text_model.embed_tokens.weight", "lm_head.weight"])


@pytest.mark.parametrize(
    ("model", "size", "tensors"),
    [("2.2b", 2_246_784_880, 657), ("500m", 507_482_304, 489), ("256m", 256_484_928, 471)],
)
def test_the_published_models_have_their_sizes(model, size, tensors):
    config = config_from_dict(REAL[model])
    assert sum(leaf.size for leaf in jax.tree.leaves(abstract(config))) == size
    assert len(placements(config)) == tensors
    assert SmolVLMNetwork(config).counts()["kv_heads"] == config.text.num_key_value_heads
