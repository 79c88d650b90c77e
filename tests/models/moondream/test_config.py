"""Settings from files: what every field may hold, what must fit together, and one error that names what does not."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxphoton.config import ConfigError
from jaxphoton.measure.cost_model import parameter_count
from jaxphoton.models.moondream.config import (
    ModelConfig,
    MoeConfig,
    RegionConfig,
    TextConfig,
    TokenizerConfig,
    VisionConfig,
)
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.models.moondream.reading import config_from_dict, config_to_dict, load_config, named_config

FAMILIES = ("moondream2", "moondream-0.5b", "moondream3")
CLASSES = {
    "vision": VisionConfig,
    "text": TextConfig,
    "region": RegionConfig,
    "tokenizer": TokenizerConfig,
    "text.moe": MoeConfig,
}
FIELDS = [(where, field.name) for where, cls in CLASSES.items() for field in dataclasses.fields(cls)]
WRONG = [None, "many", "", [], [8], {}, {"a": 1}, -1, -(10**11), 10**11, 10**400, 1.5, 1e3, 1e999, math.nan, True]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


def _written(where: str, name: str, value: object) -> dict:
    """The settings of Moondream 3 with one field replaced."""
    data = json.loads(json.dumps(config_to_dict(named_config("moondream3"))))
    at = data["config"]
    for part in where.split("."):
        at = at[part]
    at[name] = value
    return data


def _load(data: object, folder: Path) -> ModelConfig:
    file = folder / "config.json"
    file.write_text(data if isinstance(data, str) else json.dumps(data))
    return load_config(file)


def _right(where: str, name: str, value: object) -> bool:
    """Whether one of the wrong values is right for the field."""
    kind = {f.name: f.type for f in dataclasses.fields(CLASSES[where])}[name]
    nothing = name == "moe" and value in (None, {}) and value is not False
    return nothing or (kind == "bool" and value is True) or (name == "templates" and value in ({}, {"a": 1}))


@pytest.mark.parametrize(("where", "name"), FIELDS)
@pytest.mark.parametrize("value", WRONG, ids=lambda value: repr(value)[:12])
def test_a_wrong_value_is_named_with_its_field(tmp_path, where, name, value):
    data = _written(where, name, value)
    if name == "rope_theta" and value in (1.5, 1e3, 10**11):
        assert _load(data, tmp_path).text.rope_theta == value
    elif _right(where, name, value):
        _load(data, tmp_path)
    else:
        with pytest.raises(ConfigError) as caught:
            _load(data, tmp_path)
        message = str(caught.value)
        assert message.startswith(f"{tmp_path / 'config.json'}: ")
        assert name in message and ("must be" in message or "unknown settings in text.moe: a" in message)
        assert len(message) < 600 + len(str(tmp_path))


@settings(max_examples=300)
@given(field=st.sampled_from(FIELDS), value=JSON | st.integers(-3, 3000))
def test_any_value_of_any_field_loads_or_is_refused(field, value):
    where, name = field
    with tempfile.TemporaryDirectory() as folder:
        try:
            config = _load(_written(where, name, value), Path(folder))
        except ConfigError as error:
            assert folder in str(error) and len(str(error)) < 2000
        else:
            # What loads is a model of bounded size that can be counted and written again.
            assert 0 < parameter_count(MoondreamFamily(config)) < 2**42
            assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


@settings(max_examples=200)
@given(data=JSON)
def test_any_json_loads_or_is_refused(data):
    for wrapped in (data, {"config": data}, {"config": {"text": data}}, {"model_type": data}):
        try:
            config_from_dict(wrapped)  # type: ignore[arg-type]
        except ConfigError as error:
            assert len(str(error)) < 2000


TOGETHER = {
    "patches": ("vision", {"enc_patch_size": 13}, "crop_size .378. must be a multiple of enc_patch_size .13."),
    "encoder heads": ("vision", {"enc_n_heads": 15}, "enc_dim .1152. must be a multiple of enc_n_heads .15."),
    "margin": ("vision", {"overlap_margin": 14}, "overlap_margin .14. leaves no room"),
    "crops": ("vision", {"crop_size": 3780, "max_crops": 200}, "max_crops .200. crops .* are 2857680000 pixels"),
    "grid": ("vision", {"crop_size": 392}, "prefix_attn must be 1 . grid.2 = 785, not 730"),
    "projection": ("vision", {"proj_out_dim": 1024}, "proj_out_dim .1024. must equal text.dim .2048."),
    "region": ("region", {"dim": 1024}, "region.dim .1024. must equal text.dim .2048."),
    "halves": ("region", {"size_feat_dim": 511}, "size_feat_dim must be even, not 511"),
    "text heads": ("text", {"n_heads": 31}, "dim .2048. must be a multiple of n_heads .31."),
    "head dim": ("text", {"n_heads": 1024, "n_kv_heads": 1024}, "multiple of 4 .* not 2"),
    "shared heads": ("text", {"n_kv_heads": 5, "tau_attn": False}, "n_heads .32. must be a multiple of n_kv_heads .5."),
    "tau": ("text", {"n_kv_heads": 16}, "tau attention needs text.n_kv_heads .16. to equal n_heads .32."),
    "prefix": ("text", {"prefix_attn": 729}, "prefix_attn must be 1 . grid.2 = 730, not 729"),
    "context": ("text", {"max_context": 730}, "max_context .730. must be longer than the image prefix .730."),
    "layers": ("text", {"n_layers": 4}, "start_layer must be a layer, from 0 to 3, not 4"),
    "experts": ("text.moe", {"num_experts": 7}, "experts_per_token .8. must be at most num_experts .7."),
    "size": ("text.moe", {"num_experts": 4096, "expert_inner_dim": 2**20}, "5.28e.14 parameters: the most is"),
    "coordinate": ("tokenizer", {"coord_id": 51200}, "coord_id holds 51200, .*vocab_size is 51200"),
    "vocabulary": ("text", {"vocab_size": 9}, "end_ground_id holds 9, which is no token id: text.vocab_size is 9"),
}


@pytest.mark.parametrize("rule", TOGETHER)
def test_settings_that_do_not_fit_together_are_named(tmp_path, rule):
    where, values, message = TOGETHER[rule]
    data = _written(where, "unused", None)
    at = data["config"]
    for part in where.split("."):
        at = at[part]
    at.pop("unused")
    at.update(values)
    with pytest.raises(ConfigError, match=message):
        _load(data, tmp_path)


@pytest.mark.parametrize(
    "kind", ["qwen2_vl", "llava_next", "idefics3", "moondream4", "", None, 3, ["moondream2"], "x" * 10**6]
)
def test_models_of_other_families_are_refused_by_name(tmp_path, kind):
    wanted = kind[:30] if isinstance(kind, str) and kind else repr(kind)[:30].rstrip("']").replace("[", ".")
    with pytest.raises(ConfigError, match=f"not a model of ours: {wanted}.*known are .*moondream1") as e:
        _load({"architectures": ["A"], "model_type": kind, "hidden_size": 8}, tmp_path)
    assert len(str(e.value)) < 600 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("data", "family"),
    [
        ({"architectures": ["HfMoondream"], "model_type": "moondream1", "config": {}}, "moondream2"),
        ({"model_type": "moondream1", "config": None, "transformers_version": "4.52.4"}, "moondream2"),
        ({"model_type": "moondream2"}, "moondream2"),
        ({"config": {"text": None, "vision": {}}}, "moondream2"),
        ({}, "moondream2"),
        ({"model_type": "moondream3", "config": {"text": {"max_context": 4096}}}, "moondream3"),
        ({"model_type": "moondream3", "config": {}}, "moondream3"),
    ],
)
def test_published_files_that_leave_much_out(tmp_path, data, family):
    assert _load(data, tmp_path) == named_config(family)


@pytest.mark.parametrize("family", FAMILIES)
def test_written_settings_read_back(tmp_path, family):
    config = named_config(family)
    assert _load(config_to_dict(config), tmp_path) == config


def test_unknown_settings_are_named_and_cut(tmp_path):
    with pytest.raises(ConfigError, match="unknown settings in vision: enc_depth, enc_width"):
        _load({"config": {"vision": {"enc_width": 1, "enc_depth": 2}}}, tmp_path)
    with pytest.raises(ConfigError, match="and 980 more") as caught:
        _load({"config": {"text": {f"\x1b[31m{i:04}" + "x" * 900: 1 for i in range(1000)}}}, tmp_path)
    assert len(str(caught.value)) < 10_000 and str(caught.value).isprintable()
    assert _load({"config": {"text": {"group_size": 128}}}, tmp_path), "the tensors tell how they are stored"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty file"),
        (" \n", "an empty file"),
        ("{", "not JSON"),
        ("[]", "must be a JSON object, not"),
        ("null", "must be a JSON object, not None"),
        ('{"config": []}', r"config must be an object or null, not \[\]"),
        ('{"config": {"text": 3}}', "text must be an object or null, not 3"),
        ('{"config": {"text": {"dim": 64, "dim": 64}}}', "the name 'dim' occurs twice"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("[" * 900 + "]" * 900, "must be a JSON object"),
        ('{"config": {"text": {"n_layers": ' + "9" * 10_000 + "}}}", "text.n_layers must be an integer .* not inf"),
        ('{"config": {"text": {"rope_theta": NaN}}}', "text.rope_theta must be a number from 1 to 1e.12, not nan"),
    ],
)
def test_what_is_no_settings_file(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        _load(text, tmp_path)


def test_encodings(tmp_path):
    file = tmp_path / "config.json"
    file.write_bytes(b'\xef\xbb\xbf{"model_type": "moondream2"}')
    assert load_config(file) == named_config("moondream2"), "a byte order mark does no harm"
    file.write_bytes('{"model_type": "moondream2"}'.encode("utf-16"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(file)


IDS = "must be a list of token ids"
TEMPLATES = {
    "no object": ([], "tokenizer.templates must be an object"),
    "skill": ({"query": 3}, "templates.query must be an object or null, not 3"),
    "captions": ({"caption": [1]}, "templates.caption must be an object or null"),
    "no length": ({"caption": {"short": None}}, "at least one length"),
    "empty caption": ({"caption": {"short": []}}, rf"caption\['short'\] {IDS}"),
    "text": ({"caption": {"short": "abc"}}, rf"caption\['short'\] {IDS} .* not 'abc'"),
    "number": ({"caption": {"short": 3}}, rf"caption\['short'\] {IDS}"),
    "nested": ({"caption": {"short": [[1]]}}, rf"caption\['short'\] {IDS}"),
    "negative": ({"caption": {"short": [1, -1]}}, rf"caption\['short'\] {IDS} .*integers from 0.* not \[1, -1\]"),
    "float": ({"caption": {"short": [1.0]}}, rf"caption\['short'\] {IDS}"),
    "bool": ({"caption": {"short": [True]}}, rf"caption\['short'\] {IDS}"),
    "null": ({"caption": {"short": [None]}}, rf"caption\['short'\] {IDS}"),
    "huge": ({"caption": {"short": [2**70]}}, rf"caption\['short'\] {IDS}"),
    "long": ({"caption": {"short": [1] * 10**5}}, "at most 4096 of them"),
    "beyond": ({"caption": {"normal": [1, 51200]}}, r"caption\['normal'\] holds 51200, .*vocab_size is 51200"),
    "beyond in an object's": (
        {"point": {"prefix": [1], "suffix": [3, 60000]}},
        "templates.point.suffix holds 60000, which is no token id",
    ),
    "no prefix": ({"query": {"suffix": [3]}}, f"query.prefix is missing; it {IDS}"),
    "no suffix": ({"detect": {"prefix": [1]}}, f"detect.suffix is missing; it {IDS}"),
    "no opener": ({"query": {"prefix": [1]}}, "query.suffix or answer_prefix is missing"),
    "suppressed": (
        {"query": {"prefix": [], "suffix": [], "answer_suppressed_token_ids": 3}},
        f"query.answer_suppressed_token_ids {IDS}",
    ),
    "reasoning": ({"query": {"prefix": [], "suffix": [], "reasoning_default": 1}}, "reasoning_default must be true or"),
    "lead": ({"detect": {"prefix": [1], "suffix": [], "object_prefix": [1]}}, "object_prefix must be a text"),
}


@pytest.mark.parametrize("fault", TEMPLATES)
def test_faults_of_prompt_templates_are_named(tmp_path, fault):
    templates, message = TEMPLATES[fault]
    with pytest.raises(ConfigError, match=message) as caught:
        _load({"config": {"tokenizer": {"templates": templates}}}, tmp_path)
    assert len(str(caught.value)) < 800 + len(str(tmp_path))


def test_templates_keep_what_is_read(tmp_path):
    query = {"prefix": [1], "suffix": [3], "answer_prefix": None, "later": {"a": [[[]]]}}
    given = {"chat": {"prefix": "x"}, "point": None, "query": query}
    config = _load({"config": {"tokenizer": {"templates": given}}}, tmp_path)
    assert config.tokenizer.templates == {"query": {"prefix": [1], "suffix": [3]}}


def test_settings_made_in_python_are_checked_too():
    with pytest.raises(ConfigError, match="text.n_layers must be an integer from 1 to 1024, not 100000000000"):
        TextConfig(n_layers=10**11)
    with pytest.raises(ConfigError, match="region.use_ln must be true or false, not 1"):
        RegionConfig(use_ln=1)  # type: ignore[arg-type]
