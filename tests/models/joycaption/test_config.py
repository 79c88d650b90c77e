"""Settings: both generations of files, what they leave out, and LLaVAs that are something else."""

from __future__ import annotations

import copy
import shutil

import pytest

from jaxphoton.config.fields import ConfigError, OtherFamily
from jaxphoton.files import read_json
from jaxphoton.models.joycaption.config import SpecialIds
from jaxphoton.models.joycaption.reading import beside, config_from_dict, config_to_dict
from jaxphoton.models.registry import read_family
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


def test_prompts_have_ids_of_the_vocabulary():
    for path, index, name in (("text_config.bos_token_id", 128250, "header_id"), ("image_token_index", 128255, "_70")):
        with pytest.raises(ConfigError, match=rf"{name}\|> is 128256 by the settings, which is no token id"):
            config_from_dict(changed(path, index))


def tokens(**others: int) -> dict[str, int]:
    return SpecialIds(128000, 128077).named | {f"<|{name}|>": index for name, index in others.items()}


def test_the_tokenizer_has_the_ids_of_the_settings(folder, tmp_path):
    found = beside(folder)["added_tokens"]
    assert found == SpecialIds(366, 377).named and beside(tmp_path) == {}
    told = config_from_dict(REAL | {"added_tokens": tokens()})
    assert told == config_from_dict(REAL)
    short = {name: index for name, index in tokens().items() if "reserved" not in name}  # another name for the image
    assert config_from_dict(REAL | {"added_tokens": short}) == told
    with pytest.raises(OtherFamily, match="a LLaVA that is not run here: its tokenizer has no <.begin_of_text.>"):
        config_from_dict(REAL | {"added_tokens": {}})
    with pytest.raises(
        ConfigError, match=r"<.eot_id.> of the tokenizer is 7, and by the settings 128009 \(bos_token_id"
    ):
        config_from_dict(REAL | {"added_tokens": tokens(eot_id=7)})
    with pytest.raises(ConfigError, match=r"token_70.> of the tokenizer is 5, and by the settings 128078"):
        config_from_dict(REAL | {"added_tokens": tokens(reserved_special_token_70=5)})


def test_a_damaged_file_beside_the_settings_is_named(folder, tmp_path):
    shutil.copyfile(folder / "config.json", tmp_path / "config.json")
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json: generation_config\.json: not JSON"):
        read_family(tmp_path / "config.json")
    (tmp_path / "generation_config.json").unlink()
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json: tokenizer\.json: not JSON"):
        read_family(tmp_path / "config.json")
