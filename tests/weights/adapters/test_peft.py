"""Folders of PEFT: names, ranks and scales, and everything that is refused."""

from __future__ import annotations

import json
import math
import re

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.weights.adapters import load_adapter
from jaxphoton.weights.adapters.peft import _Settings
from jaxphoton.weights.checkpoint import WeightsError

from .conftest import pair, peft_tensors

QKV = {"text.blocks.1.attn.qkv": (32, 16)}


@pytest.mark.parametrize(
    ("path", "shape", "module"),
    [
        ("text.blocks.1.attn.qkv", (32, 16), "text.blocks.1.attn.qkv"),
        ("text.blocks.2.attn.proj", (16, 16), "text.blocks.2.attn.proj"),
        ("text_model.transformer.h.0.mixer.Wqkv", (32, 16), "text.blocks.0.attn.qkv"),
        ("text_model.transformer.h.2.mixer.out_proj", (16, 16), "text.blocks.2.attn.proj"),
        ("text_model.transformer.h.1.mlp.fc1", (36, 16), "text.blocks.1.mlp.fc1"),
        ("text.blocks.0._orig_mod.mlp.fc2", (16, 36), "text.blocks.0.mlp.fc2"),
    ],
)
@pytest.mark.parametrize("prefix", ["base_model.model.model.", "base_model.model.", ""])
def test_paths_of_either_scheme(tmp_path, write_peft, family, path, shape, module, prefix):
    folder = write_peft(tmp_path / "mine", peft_tensors({path: shape}, prefix=prefix))
    adapter = load_adapter(folder, family)
    a, b = pair(shape)
    assert adapter.name == "mine" and list(adapter.pairs) == [module]
    np.testing.assert_array_equal(adapter.pairs[module].a, a)
    np.testing.assert_array_equal(adapter.pairs[module].b, 2 * b)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_types_become_float32(tmp_path, write_peft, family, dtype):
    adapter = load_adapter(write_peft(tmp_path, peft_tensors(QKV, dtype=dtype), lora_alpha=6), family)
    held, b = adapter.pairs["text.blocks.1.attn.qkv"], pair((32, 16), dtype=dtype)[1]
    assert held.a.dtype == held.b.dtype == np.float32
    np.testing.assert_array_equal(held.b, b.astype(np.float32) * np.float32(1.5))


def test_attention_of_layers_with_experts(tmp_path, write_peft, expert_family):
    shapes = {
        "text.blocks.2.attn.qkv": (48, 16),
        "text.blocks.2.attn.proj": (16, 16),
        "text.blocks.0.mlp.fc1": (36, 16),
    }
    assert list(load_adapter(write_peft(tmp_path, peft_tensors(shapes)), expert_family).pairs) == sorted(shapes)


def test_a_file_of_the_folder_stands_for_it_and_older_ones_are_of_torch(tmp_path, write_peft, write_torch, family):
    folder = write_peft(tmp_path / "one", peft_tensors(QKV))
    digest = load_adapter(folder, family).digest
    assert load_adapter(folder / "adapter_model.safetensors", family, "name").name == "name"
    assert load_adapter(folder / "adapter_config.json", family).digest == digest
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(
        WeightsError, match="adapter_config.json without adapter_model.safetensors or adapter_model.bin"
    ):
        load_adapter(folder, family)
    write_torch(folder / "adapter_model.bin", peft_tensors(QKV))
    assert load_adapter(folder, family).digest == digest


def test_an_adapter_made_for_another_base_is_no_error(tmp_path, write_peft, family):
    load_adapter(write_peft(tmp_path, peft_tensors(QKV), base_model_name_or_path="somebody/else"), family)


REFUSED = [
    ({"use_dora": True}, "use_dora (DoRA"),
    ({"lora_bias": True}, "lora_bias (a bias"),
    ({"bias": "lora_only"}, "bias 'lora_only'"),
    ({"bias": "all"}, "bias 'all'"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ({"target_parameters": ["mlp.fc1.weight"]}, "target_parameters"),
    ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
    ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication"),
    ({"fan_in_fan_out": True}, "fan_in_fan_out"),
    ({"use_qalora": True}, "use_qalora"),
    ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens"),
    ({"use_bdlora": {"nblocks": 2}}, "use_bdlora"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
    ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights 'pissa_niter_16'"),
    ({"init_lora_weights": "OLoRA"}, "init_lora_weights 'OLoRA'"),
    ({"init_lora_weights": "corda"}, "init_lora_weights 'corda'"),
    ({"init_lora_weights": "loftq"}, "init_lora_weights 'loftq'"),
    ({"init_lora_weights": "lora_ga"}, "init_lora_weights 'lora_ga'"),
    ({"use_something_new": True}, "use_something_new (not known here)"),
    ({"something_config": {"a": 1}}, "something_config (not known here)"),
    ({"peft_type": "LOHA"}, "peft_type 'LOHA'"),
    ({"peft_type": None}, "peft_type None"),
    ({"r": 0}, "r must be a whole number"),
    ({"r": True}, "r must be a whole number"),
    ({"r": 10**400}, "r must be a whole number from 1 to 1e9"),
    ({"lora_alpha": None}, "lora_alpha must be a number"),
    ({"lora_alpha": 1e300}, "lora_alpha must be a number"),
    ({"rank_pattern": [4]}, "rank_pattern must be an object"),
    ({"rank_pattern": {"qkv": "4"}}, "rank_pattern of qkv must be a whole number"),
    ({"alpha_pattern": {"qkv": None}}, "alpha_pattern of qkv must be a number"),
    ({"alpha_pattern": {"(qkv": 1}}, "'(qkv' is not a regular expression"),
    ({"alpha_pattern": {r"(q{200}v){1,200}": 1}}, "repeats a part more than 10000 times"),
    ({"use_rslora": "yes"}, "use_rslora must be true or false"),
    ({"r": 3}, "not of rank 3, which adapter_config.json says"),
    ({"rank_pattern": {"blocks.1.attn.qkv": 2}}, "not of rank 2"),
]


@pytest.mark.parametrize(("settings", "said"), REFUSED, ids=lambda value: next(iter(value), "") if value else "")
def test_settings_that_are_refused(tmp_path, write_peft, family, settings, said):
    with pytest.raises(WeightsError, match=re.escape(said)):
        load_adapter(write_peft(tmp_path, peft_tensors(QKV), **settings), family)


def test_all_settings_that_are_refused_are_named_at_once(tmp_path, write_peft, family):
    with pytest.raises(WeightsError) as error:
        load_adapter(write_peft(tmp_path, peft_tensors(QKV), use_dora=True, modules_to_save=["x"]), family)
    assert "use_dora" in str(error.value) and "modules_to_save" in str(error.value)


@pytest.mark.parametrize("start", [True, False, "gaussian", "eva", "orthogonal", "mica"])
def test_initialisations_that_leave_the_base_alone(tmp_path, write_peft, family, start):
    load_adapter(write_peft(tmp_path, peft_tensors(QKV), init_lora_weights=start, loftq_config={}), family)


BASE = "base_model.model.model."
VECTOR = np.zeros(32, np.float32)
TENSORS = [
    (f"{BASE}text.blocks.1.attn.qkv.lora_magnitude_vector", VECTOR, "DoRA's magnitudes"),
    (f"{BASE}text.blocks.1.attn.qkv.lora_B.bias", VECTOR, "biases beside pairs (lora_bias)"),
    (f"{BASE}text.blocks.1.attn.qkv.base_layer.bias", VECTOR, "biases of the base"),
    (f"{BASE}text.wte.lora_embedding_A", np.zeros((4, 40), np.float32), "pairs of an embedding"),
    (f"{BASE}text.wte.token_adapter.trainable_tokens_delta", np.zeros((1, 16), np.float32), "rows of the embedding"),
    (f"{BASE}text.lm_head.weight", np.zeros((40, 16), np.float32), "unknown tensors"),
    (f"{BASE}text.blocks.0.attn.qkv.lora_A.weight", np.zeros((4, 16), np.float32), "one matrix of a pair without"),
]


@pytest.mark.parametrize(("name", "tensor", "said"), TENSORS, ids=lambda value: value if isinstance(value, str) else "")
def test_tensors_that_are_refused(tmp_path, write_peft, family, name, tensor, said):
    with pytest.raises(WeightsError, match=re.escape(said)) as error:
        load_adapter(write_peft(tmp_path, peft_tensors(QKV) | {name: tensor}), family)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("vision.blocks.0.attn.qkv", (36, 12)),
        ("text.lm_head", (40, 16)),
        ("region.coord_encoder", (16, 8)),
        ("text.blocks.1.mlp.router", (5, 16)),
        ("text.blocks.1.attn.tau.wq", (4, 48)),
        ("blocks.1.attn.qkv", (32, 16)),
    ],
)
def test_modules_that_have_no_pairs(tmp_path, write_peft, family, path, shape):
    with pytest.raises(WeightsError, match="not a module that adapters are applied to") as error:
        load_adapter(write_peft(tmp_path, peft_tensors({path: shape} | QKV)), family)
    assert path in str(error.value) and "text.blocks.N.attn.qkv, text.blocks.N.attn.proj" in str(error.value)


def test_a_layer_that_the_model_does_not_have(tmp_path, write_peft, family):
    with pytest.raises(WeightsError, match="fewer or other layers: text.blocks.7.attn.qkv"):
        load_adapter(write_peft(tmp_path, peft_tensors({"text.blocks.7.attn.qkv": (32, 16)})), family)


def test_one_module_under_two_names(tmp_path, write_peft, family):
    shapes = QKV | {"text_model.transformer.h.1.mixer.Wqkv": (32, 16)}
    with pytest.raises(WeightsError, match="the same as"):
        load_adapter(write_peft(tmp_path, peft_tensors(shapes)), family)


@pytest.mark.parametrize("dtype", [np.float64, np.int8, ml_dtypes.float8_e4m3fn])
def test_other_types(tmp_path, write_peft, family, dtype):
    tensors = {name: tensor.astype(dtype) for name, tensor in peft_tensors(QKV).items()}
    with pytest.raises(WeightsError, match=f"{np.dtype(dtype).name}, not one of float32, bfloat16, float16"):
        load_adapter(write_peft(tmp_path, tensors), family)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("matrix", ["lora_A", "lora_B"])
def test_numbers_that_are_not_finite(tmp_path, write_peft, family, matrix, value):
    tensors = peft_tensors(QKV)
    name = next(name for name in tensors if matrix in name)
    tensors[name][3, 1] = value
    with pytest.raises(WeightsError, match=f"numbers that are not finite: {name}$"):
        load_adapter(write_peft(tmp_path, tensors), family)


def test_numbers_that_their_scale_makes_infinite(tmp_path, write_peft, family):
    tensors = peft_tensors(QKV)
    next(tensor for name, tensor in tensors.items() if "lora_B" in name)[3, 1] = 3e38
    with pytest.raises(WeightsError, match="not finite in text.blocks.1.attn.qkv"):
        load_adapter(write_peft(tmp_path, tensors, lora_alpha=1000), family)


def test_a_pattern_that_takes_too_long(tmp_path, write_peft, family, monkeypatch):
    class Slow:
        def match(self, path, timeout):
            assert timeout > 0
            raise TimeoutError

    monkeypatch.setattr("jaxphoton.weights.adapters.peft.regex.compile", lambda key: Slow())
    with pytest.raises(WeightsError, match="a pattern takes too long"):
        load_adapter(write_peft(tmp_path, peft_tensors(QKV), rank_pattern={"qkv": 4}), family)


# Keys as people write them, and short ones that meet each other on a path.
PATHS = ("model.text.blocks.1.attn.qkv", "model.text.blocks.11.attn.qkv", "model.text.blocks.1.mlp.fc1", "fc1", "a.b")
KEYS = st.one_of(
    st.sampled_from(
        ["fc1", "blocks.1.fc1", "1.mlp.fc1", "blocks.1", "attn.qkv", r"blocks\.\d+\.attn\.qkv", "q.v", ".*"]
    ),
    st.sampled_from(
        ["^model.text.blocks.1.attn.qkv", "(qkv|fc1)", r"blocks\.[01]\.mlp\.fc1", "1.*", "fc1$", "", r"\.fc1"]
    ),
    st.text("ab.1c*", max_size=4).filter(lambda key: "**" not in key and not key.startswith("*")),
)


@given(
    path=st.sampled_from(PATHS),
    ranks=st.dictionaries(KEYS, st.integers(1, 64), max_size=4),
    alphas=st.dictionaries(KEYS, st.integers(1, 64), max_size=4),
    rooted=st.booleans(),
)
def test_patterns_are_matched_as_peft_matches_them(path, ranks, alphas, rooted):
    def of(pattern, default):
        matching = [key for key in pattern if re.match(rf"(.*\.)?({key})$", path)]
        return pattern[matching[0]] if matching else default

    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 4, "rank_pattern": ranks, "alpha_pattern": alphas}
    rank, scale = _Settings(json.loads(json.dumps(config | {"use_rslora": rooted}))).of(path)
    assert rank == of(ranks, 8)
    assert scale == pytest.approx(of(alphas, 4) / (math.sqrt(rank) if rooted else rank))
