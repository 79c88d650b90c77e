"""Settings: what files say, in one file or beside it, what they leave out, and models that are something else."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil

import pytest

from jaxphoton.config.fields import ConfigError, OtherFamily
from jaxphoton.files import read_json
from jaxphoton.models.registry import family_of, read_family
from jaxphoton.models.smolvlm.config import NAMES, SIDE, ImageConfig, SpecialTokens, tile_names
from jaxphoton.models.smolvlm.reading import beside, config_from_dict, config_to_dict
from tests.models.smolvlm.drawn import REAL, SMALL


def changed(path: str, value: object) -> dict:
    """REAL with one setting replaced, or taken away (...)."""
    data = at = copy.deepcopy(REAL["2.2b"])
    *front, last = path.split(".")
    for part in front:
        at = at.setdefault(part, {})
    at[last] = value
    if value is ...:
        del at[last]
    return data


def test_the_recorded_files_say_all(config, folder):
    ids = read_json(folder / "cases.json", 1 << 20)["ids"]
    tokens = config.tokens
    assert (tokens.im_start, tokens.fake, tokens.global_image) == (ids["im_start"], ids["fake"], ids["global_img"])
    assert [tokens.end_of_utterance] == ids["stops"] and config.image_token_id == ids["image"]
    assert tokens.tiles == tuple(range(ids["row_1_col_1"], ids["row_1_col_1"] + 36))
    assert (config.image.longest_edge, config.image.splitting, config.frame_tokens) == (186, True, 4)
    assert (config.side, config.max_frames, config.text.rope.rope_theta) == (3, 10, 130000.0)


def test_a_folder_tells_its_settings_in_several_files(folder, config, tmp_path):
    for name in ("config.json", "tokenizer.json", "preprocessor_config.json", "generation_config.json"):
        shutil.copyfile(folder / name, tmp_path / name)
    found = read_family(tmp_path / "config.json").config
    assert found.generation.eos_token_id == (400,) and found.image.longest_edge == 186
    assert dataclasses.replace(found, generation=config.generation) == config
    # What a converted model says needs no other file, and counts more than those.
    stored = config_to_dict(dataclasses.replace(found, image=ImageConfig(124)))
    (tmp_path / "config.json").write_text(json.dumps(stored), encoding="utf-8")
    assert read_family(tmp_path / "config.json").config.image == ImageConfig(124)
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ConfigError, match="must be a JSON object"):
        read_family(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("model", "heads", "tokens", "frames"), [("2.2b", 32, 81, 17), ("500m", 15, 64, 17), ("256m", 9, 64, 17)]
)
def test_published_files_need_nothing_beside_them(model, heads, tokens, frames):
    config = config_from_dict(REAL[model])
    assert config.text.num_attention_heads == heads
    assert (config.frame_tokens, config.max_frames, config.tokens) == (tokens, frames, SpecialTokens())
    assert config.image.longest_edge == 4 * config.vision.image_size
    assert [config.tokens.tile(0, 0), config.tokens.tile(5, 5)] == [49153, 49188]


@pytest.mark.parametrize("made", ["recorded", "small", "published"])
def test_settings_come_back_from_what_is_written(config, made):
    config = {"recorded": config, "small": SMALL, "published": config_from_dict(REAL["500m"])}[made]
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


def test_a_picture_processor_of_transformers_5_is_read(folder, config, tmp_path):
    shutil.copyfile(folder / "tokenizer.json", tmp_path / "tokenizer.json")
    pictures = read_json(folder / "preprocessor_config.json", 1 << 20) | {"do_image_splitting": False}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_seq_len": 4, "image_processor": pictures}))
    found = config_from_dict(beside(tmp_path) | read_json(folder / "config.json", 1 << 20))
    assert found.tokens == config.tokens
    assert (found.image.longest_edge, found.image.splitting, found.max_frames) == (186, False, 1)


def test_without_a_tokenizer_only_the_published_vocabulary_is_known(folder, tmp_path):
    assert beside(tmp_path) == {}
    with pytest.raises(ConfigError, match=r"put the model's tokenizer\.json beside them"):
        config_from_dict(read_json(folder / "config.json", 1 << 20))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", r"tokenizer\.json: not JSON"),
        ("[]", r"tokenizer\.json: must be a JSON object"),
        ('{"added_tokens": [1]}', "not in the usual form"),
        ('{"added_tokens": 1}', "not in the usual form"),
    ],
)
def test_a_damaged_tokenizer_is_named(tmp_path, text, fault):
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(ConfigError, match=fault):
        beside(tmp_path)


def named(**others: object) -> dict:
    return SpecialTokens().named | others


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("vision_config.model_type", "siglip_vision_model", "vision_config.model_type is 'siglip_vision_model'"),
        ("vision_config.hidden_act", "gelu", "vision_config.hidden_act"),
        ("text_config.model_type", "mistral", "text_config.model_type is 'mistral', not 'llama'"),
        ("text_config.use_resampler", True, "text_config.use_resampler is True"),
        ("text_config.qk_layer_norms", True, "text_config.qk_layer_norms"),
        ("use_resampler", True, "use_resampler"),
        ("preprocessor_config.resample", 3, "preprocessor_config.resample is 3, not 1"),
        ("preprocessor_config.image_mean", [0.48, 0.46, 0.41], "preprocessor_config.image_mean"),
        ("added_tokens", {name: 5 for name in NAMES[:3]}, "its tokenizer has no <global-img>"),
    ],
)
def test_another_model_is_refused_by_what_differs(path, value, fault):
    with pytest.raises(OtherFamily, match=fault):
        config_from_dict(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("text_config.rope_theta", ..., "no rope_theta"),
        ("image_token_id", ..., "no image_token_id"),
        ("image_token_id", 49189, "put the model's tokenizer.json beside them"),
        ("text_config.num_attention_heads", 0, "num_attention_heads must be"),
        ("text_config.vocab_size", 49000, "put the model's tokenizer.json beside them"),
        ("scale_factor", 2, r"scale_factor \(2\) must divide the 27 patches"),
        ("scale_factor", 0, "scale_factor must be"),
        ("vision_config", [], "vision_config must be an object"),
        ("vision_config.patch_size", 500, "patch_size"),
        ("preprocessor_config.size", 5, "size must be an object"),
        (
            "preprocessor_config.size",
            {"longest_edge": 384 * 7},
            "up to 7 tiles a side, and the vocabulary has names for 6",
        ),
        ("preprocessor_config.size", {"longest_edge": "long"}, "longest_edge must be"),
        ("preprocessor_config.do_image_splitting", 1, "splitting must be true or false"),
        (
            "preprocessor_config.max_image_size",
            {"longest_edge": 512},
            "longest_edge is 512, and vision_config.image_size",
        ),
        ("added_tokens", named(**{"<image>": 7}), "image_token_id is 49190, and <image> of the tokenizer is 7"),
        ("added_tokens", named(**{"<global-img>": "x"}), "global_image must be"),
        ("added_tokens", named(**{"<row_6_col_6>": 49280}), "<row_6_col_6> is 49280, which is no token id"),
        ("added_tokens", [], "added_tokens must be an object"),
        (
            "added_tokens",
            {name: 5 for name in NAMES if name != "<row_2_col_3>"},
            "up to 4 tiles a side, and the vocabulary has names for 2",
        ),
        ("generation_config.eos_token_id", 50000, r"eos_token_id\[0\] is 50000, which is no token id"),
    ],
)
def test_settings_that_do_not_fit_are_named(path, value, fault):
    with pytest.raises(ConfigError, match=fault):
        config_from_dict(changed(path, value))


def test_what_ports_leave_behind_is_passed_over():
    data = changed("text_config.perceiver_config", {"resampler_depth": 6})
    data["vision_config"] |= {"size": {"longest_edge": 1920}, "max_image_size": {"longest_edge": 364}}
    data["text_config"] |= {"pixel_shuffle_factor": 3, "use_resampler": False, "is_llama_config": True}
    assert config_from_dict(data) == config_from_dict(REAL["2.2b"])


def test_a_vocabulary_has_names_for_six_rows_of_six():
    assert NAMES[4:6] == ("<row_1_col_1>", "<row_1_col_2>") and NAMES[-1] == "<row_6_col_6>"
    assert len(NAMES) == 4 + SIDE**2


@pytest.mark.parametrize(("names", "longest", "side"), [(3, 3, 3), (4, 3, 4), (1, 1, 1), (0, 1, 0)])
def test_a_vocabulary_needs_names_for_the_tiles_that_pictures_have(names, longest, side):
    ids = {name: 100 + index for index, name in enumerate((*NAMES[:4], *tile_names(names)))}
    data = changed("added_tokens", ids) | {"preprocessor_config": {"size": {"longest_edge": 384 * longest}}}
    config = config_from_dict(data)
    assert (config.tokens.side, config.side) == (side, longest)
    if side:
        assert config.tokens.tile(side - 1, 0) == ids[f"<row_{side}_col_1>"]
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


def test_the_first_smolvlm_is_refused_for_what_it_is():
    with pytest.raises(
        OtherFamily, match=r"not a model of ours: idefics3 \(SmolVLM 1, .* another prompt .*\); known are"
    ):
        family_of({"model_type": "idefics3"})
