"""Names of models to folders and tokenizers, with the downloads faked."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from jaxphoton.models.moondream.family import STARMIE
from jaxphoton.models.moondream.reading import named_config
from jaxphoton.weights import hub
from jaxphoton.weights.checkpoint import WeightsError
from tests.weights import loading


@pytest.fixture
def downloads(monkeypatch, tmp_path):
    """Records the downloads; every repository holds a tokenizer of its own."""
    calls = []

    def fake(repo, *, revision=None, allow_patterns=None):
        calls.append((repo, revision, allow_patterns))
        folder = tmp_path / "hub" / repo.replace("/", "--")
        folder.mkdir(parents=True, exist_ok=True)
        _tokenizer(folder, 0 if repo == STARMIE else 50256)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    return calls


def _tokenizer(folder: Path, end_of_text: int | None) -> Path:
    tokens = [] if end_of_text is None else [{"id": end_of_text, "content": "<|endoftext|>"}]
    file = folder / "tokenizer.json"
    file.write_text(json.dumps({"added_tokens": tokens, "model": {"vocab": {}}}))
    return file


def test_local_paths_are_themselves(tmp_path, downloads):
    file = tmp_path / "model.safetensors"
    file.touch()
    assert hub.resolve(tmp_path) == tmp_path
    assert hub.resolve(str(file)) == file
    assert not downloads


def test_ids_are_downloaded(downloads):
    folder = hub.resolve("vikhyatk/moondream2", revision="2025-06-21")
    assert folder.name == "vikhyatk--moondream2"
    ((repo, revision, patterns),) = downloads
    assert (repo, revision) == ("vikhyatk/moondream2", "2025-06-21")
    assert {"*.json", "*.safetensors", "*.txt"} <= set(patterns)


def _fetched(patterns) -> set[str]:
    """Which files of the preview's repository the patterns take."""
    files = [f"model-{i:05}-of-00004.safetensors" for i in range(1, 5)]
    files += ["model.safetensors.index.json", "config.json", "model_fp8.pt", "tokenizer.json", "moondream.py"]
    return {file for file in files if any(fnmatch(file, pattern) for pattern in patterns)}


def test_the_preview_is_downloaded_in_one_form(downloads):
    settings = {"config.json", "model.safetensors.index.json", "tokenizer.json"}
    folder = hub.resolve("moondream/moondream3-preview")
    assert folder.is_dir()
    shards = {f"model-{i:05}-of-00004.safetensors" for i in range(1, 5)}
    assert _fetched(downloads[-1][2]) == settings | shards
    file = hub.resolve("moondream/moondream3-preview", "v1", quantized=True)
    assert file == folder / "model_fp8.pt"
    assert downloads[-1][:2] == ("moondream/moondream3-preview", "v1")
    assert _fetched(downloads[-1][2]) == settings | {"model_fp8.pt"}
    assert loading.resolve_tokenizer("moondream/moondream3-preview", file, named_config("moondream3")).is_file()
    # The other repositories have float8 experts in the one file they have.
    assert hub.resolve("moondream/moondream3.1-9B-A2B", quantized=True).is_dir()
    assert shards <= _fetched(downloads[-1][2])


def test_a_local_folder_with_both_forms(tmp_path, downloads):
    assert hub.resolve(tmp_path, quantized=True) == tmp_path
    (tmp_path / "model_fp8.pt").touch()
    assert hub.resolve(tmp_path, quantized=True) == tmp_path / "model_fp8.pt"
    assert hub.resolve(tmp_path) == tmp_path
    assert not downloads


def test_shapes_is_packaged(monkeypatch, tmp_path, downloads):
    config = named_config("moondream2")
    monkeypatch.setattr(hub.resources, "files", lambda package: tmp_path / package)
    with pytest.raises(WeightsError, match="'shapes' is missing"):
        hub.resolve("shapes")
    packaged = tmp_path / "jaxphoton" / "assets" / "shapes"
    packaged.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shapes").mkdir()
    assert hub.resolve("shapes") == packaged, "the working directory does not matter"
    assert hub.resolve("./shapes") == Path("shapes")
    file = _tokenizer(packaged, None)
    assert loading.resolve_tokenizer("shapes", packaged, config) == file
    assert not downloads


@pytest.mark.parametrize("name", ["absent", "/absent/folder", "./a/b", "a/b/c", "weights/model.safetensors/x", "~/a"])
def test_what_is_no_id_is_not_downloaded(tmp_path, monkeypatch, downloads, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="no such file or folder"):
        hub.resolve(name)
    with pytest.raises(WeightsError, match="no such file or folder"):
        hub.resolve(tmp_path / "owner" / "name")
    assert not downloads


@pytest.mark.parametrize("error", [OSError("offline"), LocalEntryNotFoundError("offline"), RuntimeError("")])
def test_failed_downloads_say_what_to_do(monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(WeightsError, match="owner/name at revision 'v1': .*Check the name and the revision"):
        hub.resolve("owner/name", "v1")
    with pytest.raises(WeightsError, match=STARMIE):
        loading.resolve_tokenizer("vikhyatk/moondream2", Path("anywhere"), named_config("moondream2"))


def test_published_moondream_uses_starmie(tmp_path, downloads):
    config = named_config("moondream2")
    for name in ("vikhyatk/moondream2", "moondream/anything"):
        file = loading.resolve_tokenizer(name, hub.resolve(name), config)
        assert file.parent.name == "moondream--starmie-v1"
        assert downloads[-1] == (STARMIE, None, ["tokenizer.json"])


def test_old_models_use_their_own_tokenizer(downloads):
    folder = hub.resolve("vikhyatk/moondream2", "2025-01-09")
    config = named_config("moondream-0.5b")
    assert loading.resolve_tokenizer("vikhyatk/moondream2", folder, config) == folder / "tokenizer.json"
    assert len(downloads) == 1


def test_local_folders(tmp_path, downloads):
    new, old = named_config("moondream2"), named_config("moondream-0.5b")
    file = _tokenizer(tmp_path, 0)
    weights = tmp_path / "model.safetensors"
    weights.touch()
    assert loading.resolve_tokenizer(tmp_path, tmp_path, new) == file
    assert loading.resolve_tokenizer(weights, weights, new) == file
    assert not downloads
    with pytest.raises(WeightsError, match="is not 50256"):
        loading.resolve_tokenizer(tmp_path, tmp_path, old)
    file.unlink()
    with pytest.raises(WeightsError, match="no such file; put the model's tokenizer.json there"):
        loading.resolve_tokenizer(tmp_path, tmp_path, old)
    assert loading.resolve_tokenizer(tmp_path, tmp_path, new).parent.name == "moondream--starmie-v1"


def test_a_stale_tokenizer_in_a_copied_repository_is_not_used(tmp_path, downloads):
    _tokenizer(tmp_path, 50256)
    assert (
        loading.resolve_tokenizer(tmp_path, tmp_path, named_config("moondream2")).parent.name == "moondream--starmie-v1"
    )
    (tmp_path / "tokenizer.json").write_text("[]")
    with pytest.raises(WeightsError, match="not a tokenizer file"):
        loading.resolve_tokenizer(tmp_path, tmp_path, named_config("moondream2"))
