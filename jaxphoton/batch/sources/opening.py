"""From what a user names as INPUT to a source."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from jaxphoton.batch.errors import SourceError
from jaxphoton.batch.sources.base import Skipped, Source, SourceOptions
from jaxphoton.batch.sources.beside import Beside, begins_like_an_image
from jaxphoton.batch.sources.chain import Chain
from jaxphoton.batch.sources.containers import containers
from jaxphoton.batch.sources.files import Files, OneFile
from jaxphoton.batch.sources.folders import Walk
from jaxphoton.batch.sources.globs import is_glob
from jaxphoton.batch.sources.item import IMAGE_SUFFIXES
from jaxphoton.batch.sources.lists import JsonLines, TextList
from jaxphoton.batch.sources.parquet import Parquet
from jaxphoton.batch.sources.storage import exists, filesystem, is_remote, is_web, suffix_of
from jaxphoton.batch.sources.tar import Tar
from jaxphoton.batch.sources.unpacking import TAR_SUFFIXES, UNREAD_SUFFIXES
from jaxphoton.messages import escaped

DEFAULT = SourceOptions()
FORMS = "an image, a folder, a glob, .txt, .jsonl, .parquet, .tar, or an address of one of these (s3://, hf://, ...)"
_KINDS = {".parquet": ".parquet", ".jsonl": ".jsonl", ".txt": ".txt"} | dict.fromkeys(TAR_SUFFIXES, ".tar")


def open_source(spec: str | Sequence[str], options: SourceOptions = DEFAULT) -> Source:
    """The images that `spec` names.

    Args:
      spec: an image; a folder (with its subfolders); a glob of images; a list (`.txt`, `.jsonl`); tables (`.parquet`)
        or webdataset shards (`.tar`), one or by braces or glob (`shard-{000..099}.tar`); the address of any of these
        through fsspec; a dataset on Hugging Face (`hf://datasets/user/name`: its parquet files, else its tars, else
        its images). Or several of these.

    Raises:
      SourceError: it does not exist, holds no images, or is of no kind that can be read.
    """
    if not isinstance(spec, str):
        return _open_several(list(dict.fromkeys(spec)), options)
    if not is_remote(spec) and os.path.isdir(spec):
        return Files(spec, options)
    if is_remote(spec):
        filesystem(spec, options.retry)  # an unknown scheme or a package that lacks, before the model is loaded
    if begins_like_an_image(spec):
        return OneFile(spec, options)
    if (kind := container_kind(spec)) is not None:
        return _from_containers(kind, containers(spec, options.retry), options)
    if is_glob(spec) and not os.path.isfile(spec):
        return Files(spec, options, pattern=True)
    if suffix_of(spec) in IMAGE_SUFFIXES:
        return OneFile(spec, options)
    if spec.startswith("hf://"):
        return _dataset(spec, options)
    if not exists(spec, options.retry):
        raise SourceError(f"{escaped(spec)} does not exist")
    if not is_remote(spec) or suffix_of(spec) or is_web(spec):
        _refuse(spec)
    return Files(spec, options)


def local_images(specs: Sequence[str]) -> dict[str, Path]:
    """Key -> file of every image on this machine that the paths name, in their order.

    Raises:
      SourceError: nothing was found, or an entry is no file of this machine.
    """
    items = list(open_source(specs).items())
    for item in items:
        if not item.local:
            raise SourceError(f"{item.key}: not a file on this machine")
    return {item.key: Path(item.path) for item in items}


def container_kind(spec: str) -> str | None:
    """The kind of container that a name means, by a suffix of `_KINDS`; None for other names."""
    name = spec.partition("?")[0] if is_web(spec) else spec
    return next((kind for suffix, kind in _KINDS.items() if name.lower().endswith(suffix)), None)


def _refuse(spec: str) -> None:
    if any(spec.lower().endswith(suffix) for suffix in UNREAD_SUFFIXES):
        raise SourceError(f"{spec}: archives of this kind are not read; unpack it, or make a .tar of it")
    if not is_remote(spec) and not os.path.isfile(spec):
        raise SourceError(f"{spec}: a pipe or a device, not a file")
    raise SourceError(f"{spec}: cannot tell what this is; expected {FORMS}")


def _open_several(specs: list[str], options: SourceOptions) -> Source:
    if not specs:
        raise SourceError("no input given")
    kinds = {container_kind(spec) for spec in specs}
    if len(kinds) == 1 and (kind := kinds.pop()) is not None and not any(map(begins_like_an_image, specs)):
        # What a shell has made of `*.tar`.
        return _from_containers(kind, [path for spec in specs for path in containers(spec, options.retry)], options)
    sources, skipped = [], Skipped()
    beside = Beside(specs)
    for spec in specs:
        if spec in beside:
            skipped.files[suffix_of(spec) or "without a suffix"] += 1
        else:
            sources.append(open_source(spec, options))
    if len(sources) == 1 and not skipped.lines():
        return sources[0]
    return Chain(sources, skipped)


def _from_containers(kind: str, paths: list[str], options: SourceOptions) -> Source:
    if kind == ".tar":
        return Tar(paths, options)
    if kind == ".parquet":
        return Parquet(paths, options)
    lists = JsonLines if kind == ".jsonl" else TextList
    sources: list[Source] = [lists(path, options) for path in paths]
    return sources[0] if len(sources) == 1 else Chain(sources)


def _dataset(spec: str, options: SourceOptions) -> Source:
    if not exists(spec, options.retry):
        raise SourceError(f"{spec} does not exist, or needs a login (hf auth login)")
    found: dict[str, list[str]] = {".parquet": [], ".tar": []}
    for name, error in Walk(spec).files():
        if error is not None:
            raise SourceError(f"{spec}: cannot be listed: {error}")
        if (kind := container_kind(name)) in found:
            found[kind].append(f"{spec.rstrip('/')}/{name}")
    for kind, paths in found.items():
        if paths:
            return _from_containers(kind, paths, options)
    return Files(spec, options)
