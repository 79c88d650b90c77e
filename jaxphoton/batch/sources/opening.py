"""From what a user names as INPUT to a source."""

from __future__ import annotations

import os
from collections.abc import Sequence

from jaxphoton.batch.errors import SourceError
from jaxphoton.batch.sources.base import Source, SourceOptions
from jaxphoton.batch.sources.chain import Chain
from jaxphoton.batch.sources.files import Files, OneFile
from jaxphoton.batch.sources.item import IMAGE_SUFFIXES
from jaxphoton.batch.sources.lists import JsonLines, TextList
from jaxphoton.batch.sources.parquet import Parquet
from jaxphoton.batch.sources.patterns import containers, is_glob
from jaxphoton.batch.sources.storage import exists, is_remote, suffix_of, walk
from jaxphoton.batch.sources.tar import Tar

DEFAULT = SourceOptions()
CONTAINERS = (".tar", ".parquet", ".jsonl", ".txt")
FORMS = "an image, a folder, a glob, .txt, .jsonl, .parquet, .tar, or an address of one of these (s3://, hf://, ...)"


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
        return Files(spec)
    suffix = suffix_of(spec)
    if suffix in CONTAINERS:
        return _from_containers(suffix, containers(spec), options)
    if is_glob(spec) and not os.path.isfile(spec):
        return Files(spec, pattern=True)
    if suffix in IMAGE_SUFFIXES:
        return OneFile(spec)
    if spec.startswith("hf://"):
        return _dataset(spec, options)
    if not exists(spec):
        raise SourceError(f"{spec} does not exist")
    if not is_remote(spec) or suffix or spec.startswith(("http://", "https://")):
        raise SourceError(f"{spec}: cannot tell what this is; expected {FORMS}")
    return Files(spec)


def _open_several(specs: list[str], options: SourceOptions) -> Source:
    if not specs:
        raise SourceError("no input given")
    suffixes = {suffix_of(spec) for spec in specs}
    if len(suffixes) == 1 and (suffix := suffixes.pop()) in CONTAINERS:
        # What a shell has made of `*.tar`.
        return _from_containers(suffix, [path for spec in specs for path in containers(spec)], options)
    sources = [open_source(spec, options) for spec in specs]
    return sources[0] if len(sources) == 1 else Chain(sources)


def _from_containers(suffix: str, paths: list[str], options: SourceOptions) -> Source:
    if suffix == ".tar":
        return Tar(paths, options)
    if suffix == ".parquet":
        return Parquet(paths, options)
    kind = JsonLines if suffix == ".jsonl" else TextList
    sources: list[Source] = [kind(path, options) for path in paths]
    return sources[0] if len(sources) == 1 else Chain(sources)


def _dataset(spec: str, options: SourceOptions) -> Source:
    if not exists(spec):
        raise SourceError(f"{spec} does not exist, or needs a login (hf auth login)")
    found: dict[str, list[str]] = {".parquet": [], ".tar": []}
    for name, error in walk(spec):
        if error is not None:
            raise SourceError(f"{spec}: cannot be listed: {error}")
        if suffix_of(name) in found:
            found[suffix_of(name)].append(f"{spec.rstrip('/')}/{name}")
    for suffix, paths in found.items():
        if paths:
            return _from_containers(suffix, paths, options)
    return Files(spec)
