"""From the name of a model to its folder and its tokenizer. Imports no jax, and huggingface_hub only to download."""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path

from jaxphoton.files import MAX_TOKENIZER_BYTES, FileError, read_json
from jaxphoton.messages import escaped, first_line, quoted, short
from jaxphoton.models.protocol import Family
from jaxphoton.models.registry import read_family, settings_file
from jaxphoton.weights.checkpoint import WeightsError, open_checkpoint

SHAPES = "shapes"  # the small model that comes with the package

# The training-style file with float8 experts that some repositories have beside the published shards in bfloat16.
FLOAT8_FILE = "model_fp8.pt"
FLOAT8_FILE_REPOSITORIES = frozenset({"moondream/moondream3-preview"})

SETTINGS_FILES = ["*.json", "*.txt", "tokenizer*"]
MODEL_FILES = [*SETTINGS_FILES, "*.safetensors"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)


def resolve(path_or_id: str | Path, revision: str | None = None, quantized: bool = False) -> Path:
    """The local file or folder of a model.

    `shapes` is the packaged model whatever the working directory holds (write `./shapes` for a folder). An existing
    path is itself. Anything of the form `owner/name` is downloaded from Hugging Face, or taken from its cache.
    With `quantized` it is the file `FLOAT8_FILE` where a folder or a known repository has one; of a repository only
    that one is downloaded then, not the shards.

    Raises:
      WeightsError: nothing of that name exists, or it cannot be downloaded.
    """
    name = str(path_or_id)
    if name == SHAPES:
        return _packaged()
    path = Path(os.path.expanduser(name))
    if os.path.lexists(path):
        file = path / FLOAT8_FILE
        return file if quantized and file.is_file() else path
    if isinstance(path_or_id, Path) or not _HUB_ID.fullmatch(name):
        also = f"and neither {SHAPES!r} nor a Hugging Face id (owner/name)"
        raise WeightsError(f"{short(name)}: no such file or folder, {also}")
    if quantized and name in FLOAT8_FILE_REPOSITORIES:
        return _download(name, revision, [*SETTINGS_FILES, FLOAT8_FILE]) / FLOAT8_FILE
    return _download(name, revision, MODEL_FILES)


def check(path: Path) -> Family:
    """Reads the settings of a local model and the headers of its weights: what shows most damage in no time.

    Returns:
      the family, bound to its settings.

    Raises:
      ConfigError: the settings are missing or wrong.
      WeightsError: the weights are missing or damaged.
    """
    family = read_family(settings_file(path))
    if not os.path.isdir(path / "params"):
        open_checkpoint(path)
    return family


def resolve_tokenizer(model: str | Path, folder: str | Path, family: Family) -> Path:
    """The `tokenizer.json` of a model: `model` as given to `resolve`, `folder` as it returned.

    It is beside the weights, unless the family says otherwise (`protocol.TokenizerPlace`): for a repository of the hub
    by its name, for a copy in a local folder if the file there has another end-of-text id than the settings.

    Raises:
      WeightsError: there is no tokenizer for the settings, or it cannot be downloaded.
    """
    folder = Path(folder)
    own = (folder if folder.is_dir() else folder.parent) / "tokenizer.json"
    local = str(model) == SHAPES or os.path.lexists(os.path.expanduser(model))
    place = family.tokenizer
    if not local and place.repository and str(model).startswith(place.instead):
        return _tokenizer_of(place.repository)
    there = os.path.lexists(own)
    if there and (place.end_of_text is None or _end_of_text(own) in (None, place.end_of_text)):
        return own
    if place.repository:
        return _tokenizer_of(place.repository)
    fault = f"its <|endoftext|> is not {place.end_of_text}, as the settings say" if there else "no such file"
    raise WeightsError(f"{escaped(own)}: {fault}; put the model's tokenizer.json there")


def _packaged() -> Path:
    folder = Path(str(resources.files("jaxphoton").joinpath("assets", SHAPES)))
    if not folder.is_dir():
        raise WeightsError(f"the packaged model {SHAPES!r} is missing from this installation")
    return folder


def _tokenizer_of(repository: str) -> Path:
    file = _download(repository, None, ["tokenizer.json"]) / "tokenizer.json"
    if not file.is_file():
        raise WeightsError(f"{repository}: the download holds no tokenizer.json")
    return file


def _end_of_text(file: Path) -> int | None:
    """The id of `<|endoftext|>` in a tokenizer file, None where it has no such token."""
    try:
        data = read_json(file, MAX_TOKENIZER_BYTES)
        added = {token["content"]: token["id"] for token in data.get("added_tokens") or ()}
        vocab = (data.get("model") or {}).get("vocab")
    except FileError as error:
        raise WeightsError(f"{escaped(file)}: not a tokenizer file: {error}") from None
    except (TypeError, KeyError, AttributeError) as error:
        raise WeightsError(f"{escaped(file)}: not a tokenizer file: its tokens are not in the usual form") from error
    return added.get("<|endoftext|>", vocab.get("<|endoftext|>") if isinstance(vocab, dict) else None)


def _download(repo: str, revision: str | None, patterns: list[str]) -> Path:
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the library passes on the exceptions of its HTTP client, whichever that is
        at = f" at revision {quoted(revision)}" if revision else ""
        reason = first_line(error)
        raise WeightsError(
            f"{short(repo)}{at}: not found locally, and the download from Hugging Face failed ({type(error).__name__}: "
            f"{reason}). Check the name and the revision; without a network, download the repository elsewhere and "
            "pass the path of its folder; for a gated one, log in first (hf auth login)."
        ) from error
