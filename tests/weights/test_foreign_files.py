"""Folders of models as strangers leave them: whatever lies there loads, or is refused in a short message."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxphoton.config import ConfigError
from jaxphoton.models.moondream.params import Form
from jaxphoton.models.moondream.reading import config_to_dict
from jaxphoton.weights import hub
from jaxphoton.weights.checkpoint import open_checkpoint
from jaxphoton.weights.load import WeightsError
from tests.weights import loading
from tests.weights.loading import load_model, load_params

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def models(tmp_path_factory, write_file, write_torch, published_tensors, mini_config) -> Path:
    """One small model in three forms: `whole`, `sharded`, `torch`."""
    place = tmp_path_factory.mktemp("models")
    tensors = published_tensors(mini_config, Form())
    write_file(place / "whole" / "model.safetensors", tensors)
    write_torch(place / "torch" / "model.pt", tensors)
    names = list(tensors)
    shards = {f"model-{i}.safetensors": names[i::2] for i in range(2)}
    for shard, held in shards.items():
        write_file(place / "sharded" / shard, {name: tensors[name] for name in held})
    homes = {name: shard for shard, held in shards.items() for name in held}
    (place / "sharded" / INDEX).write_text(json.dumps({"weight_map": homes}))
    for form in place.iterdir():
        (form / "config.json").write_text(json.dumps(config_to_dict(mini_config)))
        (form / "tokenizer.json").write_text(json.dumps({"added_tokens": [], "model": {"vocab": {"a": 0}}}))
    return place


@pytest.fixture
def copy(models, tmp_path):
    def make(form: str) -> Path:
        return Path(shutil.copytree(models / form, tmp_path / form))

    return make


FILES = [
    ("whole", "config.json"),
    ("whole", "model.safetensors"),
    ("sharded", INDEX),
    ("sharded", "model-1.safetensors"),
    ("torch", "model.pt"),
]


def _replaced(file: Path, kind: str) -> None:
    file.unlink()
    if kind == "a named pipe":
        os.mkfifo(file)  # opening one to read waits for a writer
    elif kind == "a folder":
        file.mkdir()
    elif kind == "a device":
        file.symlink_to("/dev/zero")  # without an end
    else:
        file.symlink_to("nowhere")


@pytest.mark.parametrize("kind", ["a named pipe", "a folder", "a device", "no such file"])
@pytest.mark.parametrize(("form", "name"), FILES)
def test_only_regular_files_are_opened(copy, form, name, kind):
    folder = copy(form)
    _replaced(folder / name, kind)
    with pytest.raises((WeightsError, ConfigError), match=f"{name}: .*{kind}"):
        load_model(folder)
    if not name.endswith(".json") and kind != "a folder":
        with pytest.raises(WeightsError, match=f"{name}: .*{kind}"):
            load_model(folder / name)


@pytest.mark.parametrize("kind", ["a named pipe", "a folder", "a device", "no such file"])
def test_the_tokenizer_beside_the_weights_too(copy, mini_config, kind):
    folder = copy("whole")
    _replaced(folder / "tokenizer.json", kind)
    with pytest.raises(WeightsError, match=f"tokenizer.json: .*{kind}"):
        loading.resolve_tokenizer(folder, folder, mini_config)


@pytest.mark.parametrize("name", ["config.json", INDEX, "tokenizer.json"])
def test_json_files_are_read_up_to_a_bound(copy, mini_config, name):
    folder = copy("sharded")
    with open(folder / name, "r+b") as file:
        file.truncate(1 << 40)  # a hole: nothing is stored
    tracemalloc.start()
    try:
        with pytest.raises((WeightsError, ConfigError), match=f"{name}: .*larger than"):
            load_model(folder)
            loading.resolve_tokenizer(folder, folder, mini_config)
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()


def test_a_snapshot_of_links_loads(copy, tmp_path):
    """The cache of downloads keeps blobs under their digests and links to them by name."""
    folder = copy("sharded")
    (tmp_path / "blobs").mkdir()
    for i, file in enumerate(sorted(folder.iterdir())):
        file.rename(tmp_path / "blobs" / str(i))
        file.symlink_to(Path("..") / "blobs" / str(i))
    assert load_model(folder)[0].text.n_layers == 3


LONG = "model.text.blocks.0." + "x" * 10**5
NAMES = [LONG, "model.text.blocks.0.\x1b[2J\x07\u202e" + "y" * 500, "model.text.blocks.0.\n\nmodel loaded"]


@pytest.mark.parametrize("name", NAMES, ids=["long", "control", "lines"])
def test_names_of_tensors_are_cut_and_escaped(tmp_path, write_file, write_torch, mini_config, mini_tensors, name):
    one = np.ones(3, np.float32)
    for write, file in ((write_file, "a.safetensors"), (write_torch, "a.pt")):
        path = write(tmp_path / file, {**mini_tensors, **{name + str(i): one for i in range(30)}})
        with pytest.raises(WeightsError, match=r"30 unexpected: .*and 10 more") as caught:
            load_params(path, mini_config)
        head, *lines = str(caught.value).split("\n")
        assert len(str(caught.value)) < 6000 and head.isprintable() and len(lines) == 1 and lines[0].isprintable()
    header = {name: {"dtype": "F9", "shape": [1], "data_offsets": [0, 4]}}
    faults = [header, {name: 3}, {name: {**header[name], "dtype": "F32", "data_offsets": [4, 8]}}]
    faults += [{name: {**header[name], "dtype": name}}, {"a": {"dtype": "F32", "shape": [10**5000], "data_offsets": 3}}]
    for fault in faults:
        text = json.dumps(fault).encode() if "a" not in fault else b'{"a": {"shape": [' + b"9" * 10**6 + b"]}}"
        (tmp_path / "b.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
        with pytest.raises(WeightsError) as caught:
            open_checkpoint(tmp_path / "b.safetensors")
        assert len(str(caught.value)) < 1000 and str(caught.value).isprintable()


def test_a_name_in_two_files_is_cut(tmp_path, write_file):
    for part in "ab":
        write_file(tmp_path / f"{part}.safetensors", {LONG: np.ones(3, np.float32)})
    with pytest.raises(WeightsError, match="is in both a.safetensors and b.safetensors") as caught:
        open_checkpoint(tmp_path)
    assert len(str(caught.value)) < 1000


SHARDS = ["../a.safetensors", "/etc/passwd", "", ".", "..", "a/b", "a\\b", "a\0b", "a\nb", "x" * 256, "é" * 128]
SHARDS += ["\ud800", "x" * 10**6]


@pytest.mark.parametrize("shard", SHARDS, ids=[ascii(shard)[:12] for shard in SHARDS])
def test_a_shard_is_a_file_of_the_folder(copy, shard):
    folder = copy("sharded")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(WeightsError, match="is not a plain file name") as caught:
        load_model(folder)
    assert len(str(caught.value)) < 1000 and str(caught.value).isprintable()


def test_long_lists_of_shards_and_tensors_are_cut(copy):
    folder = copy("sharded")
    homes = json.loads((folder / INDEX).read_text())["weight_map"]
    (folder / INDEX).write_text(json.dumps({"weight_map": {f"t{i}": f"shard-{i}" for i in range(5000)}}))
    with pytest.raises(WeightsError, match=r"5000 of 5000 shards are missing: .*and 4980 more") as caught:
        load_model(folder)
    assert len(str(caught.value)) < 2000
    homes |= {LONG + str(i): "model-0.safetensors" for i in range(2)}
    (folder / INDEX).write_text(json.dumps({"weight_map": homes}))
    with pytest.raises(WeightsError, match="2 tensors of the index are not in their shard") as caught:
        load_model(folder)
    assert len(str(caught.value)) < 1000


@settings(max_examples=200)
@given(data=st.data())
def test_damage_anywhere_in_a_model_loads_or_is_refused(models, data):
    form, name = data.draw(st.sampled_from(FILES))
    whole = (models / form / name).read_bytes()
    # Where a file has a header, damage to it is what a reader may fall over.
    span = min(len(whole), int.from_bytes(whole[:8], "little") + 8) if name.endswith(".safetensors") else len(whole)
    position = st.integers(0, span - 1)
    damaged = bytearray(whole)
    for at, piece in data.draw(st.lists(st.tuples(position, st.binary(max_size=4)), max_size=4)):
        damaged[at : at + 1] = piece
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged))) :]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(models / form, Path(place) / "model"))
        (folder / name).write_bytes(damaged)
        try:
            load_model(folder)
        except (WeightsError, ConfigError) as error:
            assert str(folder) in str(error) and len(str(error)) < 10_000


def test_a_list_of_records_beyond_the_bound_is_not_read(tmp_path, monkeypatch, write_torch, mini_tensors):
    from jaxphoton.weights import torch_file

    path = write_torch(tmp_path / "a.pt", mini_tensors)
    monkeypatch.setattr(torch_file, "MAX_READ", 4096)
    with pytest.raises(WeightsError, match="more than 4096 bytes of records"):
        open_checkpoint(path)


def test_names_of_models_that_no_file_can_have():
    for name in ("x" * 5000, "~nobody-of-that-name/x", "a\0b", "\ud800"):
        with pytest.raises(WeightsError, match="no such file or folder") as caught:
            hub.resolve(name)
        assert len(str(caught.value)) < 300
