"""Settings: both generations of files, what they leave out, and LLaVAs that are something else."""

from __future__ import annotations

import copy

import pytest

from jaxphoton.config.fields import ConfigError, OtherFamily
from jaxphoton.files import read_json
from jaxphoton.models.joycaption.reading import config_from_dict, config_to_dict
from tests.models.joycaption.drawn import REAL


def changed(path: str, value: object) -> dict:
    """REAL with one setting replaced, or taken away (...)."""
    data = at = copy.deepcopy(REAL)
    *front, last = path.split(".")
    for part in front:
        at = at[part]
    at[last] = value
    if value is ...:
        del at[last]
    return data


def test_both_generations_of_files_say_the_same(folder):
    old, new = (config_from_dict(read_json(folder / name, 1 << 20)) for name in ("config.json", "config_v5.json"))
    assert old == new
    assert old.text.head_dim == 24 and old.text.rope.rope_type == "llama3"


def test_settings_come_back_from_what_is_written():
    config = config_from_dict(REAL)
    assert config_from_dict(config_to_dict(config)) == config


def test_what_a_file_leaves_out_is_the_default_of_its_class():
    config = config_from_dict(REAL)
    assert (config.text.hidden_size, config.text.num_hidden_layers, config.text.head_dim) == (4096, 32, 128)
    assert (config.vision.image_tokens, config.vision_layers, config.tie_word_embeddings) == (729, 26, False)
    assert config_from_dict(changed("text_config.num_key_value_heads", ...)).text.num_key_value_heads == 32
    assert config_from_dict(changed("text_config.rope_scaling.type", "llama3")).text.rope.factor == 8.0
    assert config_from_dict(changed("text_config.eos_token_id", 128009)).eos_token_id == (128009,)


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("vision_config.model_type", "clip_vision_model", "vision_config.model_type is 'clip_vision_model'"),
        ("vision_config.model_type", ..., "vision_config.model_type is 'clip_vision_model'"),
        ("vision_config.hidden_act", "quick_gelu", "vision_config.hidden_act"),
        ("text_config.model_type", "mistral", "text_config.model_type is 'mistral', not 'llama'"),
        ("text_config.attention_bias", True, "text_config.attention_bias"),
        ("vision_feature_select_strategy", "default", "vision_feature_select_strategy is 'default', not 'full'"),
        ("projector_hidden_act", "gelu_new", "projector_hidden_act"),
    ],
)
def test_another_llava_is_refused_by_what_differs(path, value, fault):
    with pytest.raises(OtherFamily, match=fault):
        config_from_dict(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("text_config.rope_theta", ..., "no rope_theta"),
        ("text_config.rope_scaling.factor", ..., "without factor"),
        ("text_config.rope_scaling.rope_type", "yarn", "rope_type must be"),
        ("text_config.rope_scaling.low_freq_factor", 4.0, "low_freq_factor"),
        ("text_config.rope_scaling", 8, "rope_scaling must be an object"),
        ("text_config.num_key_value_heads", 5, "num_attention_heads"),
        ("text_config.num_attention_heads", 0, "num_attention_heads must be"),
        ("text_config.hidden_size", "wide", "hidden_size must be"),
        ("text_config.head_dim", 127, "even"),
        ("text_config.eos_token_id", [], "eos_token_id must be"),
        ("text_config.eos_token_id", [2, 200000], "200000, which is no token id"),
        ("vision_config.patch_size", 500, "patch_size"),
        ("vision_config", [], "vision_config must be an object"),
        ("vision_feature_layer", -29, "vision_feature_layer"),
        ("vision_feature_layer", [-2, -5], "vision_feature_layer must be"),
        ("image_token_index", 128256, "image_token_index holds 128256"),
    ],
)
def test_settings_that_do_not_fit_are_named(path, value, fault):
    with pytest.raises(ConfigError, match=fault):
        config_from_dict(changed(path, value))
