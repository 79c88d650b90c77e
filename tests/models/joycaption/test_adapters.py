"""Files of adapters: names of every generation, pairs of the vision encoder, and merging."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxphoton.models import registry
from jaxphoton.models.naming import WeightsError
from jaxphoton.weights.adapters import load_adapter
from jaxphoton.weights.load import load_model, load_params

RANK, ALPHA = 2, 4
Q, DOWN, SEEN = "layers.1.self_attn.q_proj", "layers.0.mlp.down_proj", "encoder.layers.0.self_attn.v_proj"
UNSEEN = "encoder.layers.2.self_attn.q_proj"  # of the layer behind the one that the projector reads
# Of the decoder and of the vision tower, in files of transformers 4, of 4.52 to 5.0, and of 5.24.
GENERATIONS = [
    ("language_model.model.", "vision_tower.vision_model."),
    ("model.language_model.", "model.vision_tower.vision_model."),
    ("model.language_model.", "model.vision_tower."),
]


@pytest.fixture
def write(tmp_path, config):
    """Writes a folder of PEFT with pairs for the modules at these paths; `zero` are those whose `b` is."""
    text, dim = config.text, config.vision.hidden_size
    heads = text.num_attention_heads * text.head_dim
    sizes = {Q: (heads, text.hidden_size), DOWN: (text.hidden_size, text.intermediate_size)}

    def write(*paths: str, zero: tuple[str, ...] = (), **settings):
        random, tensors = np.random.default_rng(0), {}
        for path in paths:
            rows, columns = next((size for name, size in sizes.items() if path.endswith(name)), (dim, dim))
            a, b = random.normal(0, 0.1, (RANK, columns)), random.normal(0, 0.1, (rows, RANK))
            front = f"base_model.model.{path}"
            tensors[f"{front}.lora_A.weight"] = a.astype(np.float32)
            tensors[f"{front}.lora_B.weight"] = (b * (path not in zero)).astype(np.float32)
        config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": ["q_proj"]} | settings
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / "adapter_config.json").write_text(json.dumps(config))
        save_file(tensors, tmp_path / "mine" / "adapter_model.safetensors")
        return tmp_path / "mine", tensors

    return write


@pytest.mark.parametrize("generation", GENERATIONS)
def test_paths_of_every_generation(bound, write, generation):
    text, vision = generation
    folder, tensors = write(text + Q, text + DOWN, vision + UNSEEN, vision + SEEN, zero=(vision + SEEN,))
    adapter = load_adapter(folder, bound)
    assert sorted(adapter.pairs) == [f"language_model.{DOWN}", f"language_model.{Q}"]
    b = tensors[f"base_model.model.{text}{Q}.lora_B.weight"]
    np.testing.assert_array_equal(adapter.pairs[f"language_model.{Q}"].b, b * np.float32(ALPHA / RANK))


def test_what_is_added_to_the_vision_encoder_is_refused_and_the_way_out_told(bound, write):
    folder, _ = write("language_model.model." + Q, "vision_tower.vision_model." + SEEN)
    fault = rf"no part of the text decoder.*convert MODEL FOLDER --merge-adapter ADAPTER.*: vision_tower\.{SEEN}$"
    with pytest.raises(WeightsError, match=fault):
        load_adapter(folder, bound)
    assert f"vision_tower.{SEEN}" in load_adapter(folder, bound, merging=True).pairs


@pytest.mark.parametrize("path", ["language_model.lm_head", "model.layers.0.self_attn.q_proj", "vision_tower.q_proj"])
def test_other_modules_are_refused_by_name(bound, write, path):
    with pytest.raises(WeightsError, match=r"not a module that adapters are applied to .*q_proj.*\): "):
        load_adapter(write(path)[0], bound)


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setitem(registry.FAMILIES, "llava", "jaxphoton.models.joycaption.family")


@pytest.mark.parametrize("generation", [0, 1])
@pytest.mark.usefixtures("known")
def test_merged_weights_are_those_of_a_file_with_the_sums(folder, bound, params, write, generation, tmp_path):
    """Pairs and weights may have names of different generations."""
    text, vision = GENERATIONS[generation]
    projector = "multi_modal_projector.linear_2"
    dim = bound.config.text.hidden_size
    mine, pairs = write(text + Q, vision + SEEN, vision + UNSEEN)
    more = {f"base_model.model.{projector}.lora_{m}.weight": np.full(s, 0.1, np.float32) for m, s in
            (("A", (RANK, dim)), ("B", (dim, RANK)))}  # fmt: skip
    save_file(pairs | more, mine / "adapter_model.safetensors")
    summed = {name: tensor.astype(np.float32) for name, tensor in load_file(folder / "model.safetensors").items()}
    for path, name in (
        (text + Q, f"language_model.model.{Q}"),
        (vision + SEEN, f"vision_tower.vision_model.{SEEN}"),
        (projector, projector),
    ):
        a, b = ((pairs | more)[f"base_model.model.{path}.lora_{matrix}.weight"] for matrix in "AB")
        summed[f"{name}.weight"] += ALPHA / RANK * (b @ a)
    save_file(summed, file := tmp_path / "summed.safetensors")
    merged = load_model(folder, jnp.float32, merge=mine)[1]
    wanted = load_params(file, bound, jnp.float32)
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-7), merged, wanted)
    few = load_model(folder, jnp.float32, merge=mine, quantize="int8")[1]
    jax.tree.map(np.testing.assert_array_equal, few.text.layers[0], load_params(
        file, bound, jnp.float32, quantize="int8").text.layers[0])  # fmt: skip
    assert np.max(np.abs(merged.text.layers[1].qkv_w.matrix - params.text.layers[1].qkv_w.matrix)) > 1e-3
