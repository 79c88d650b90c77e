"""Scratch memory of the real programs, compiled for this machine without weights; kept on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from importlib import resources
from pathlib import Path

import jax

from jaxphoton import platform
from jaxphoton.config import EngineConfig
from jaxphoton.config.quantization import quantization
from jaxphoton.engine.buckets import Key, compiled
from jaxphoton.engine.compiled import Programs
from jaxphoton.models.forms import quantized_tree
from jaxphoton.models.protocol import Family

# What the programs are made from.
SOURCES = (
    "jaxphoton/config",
    "jaxphoton/constraints",
    "jaxphoton/engine",
    "jaxphoton/layers",
    "jaxphoton/models",
    "kernels_pallas",
)


def compiled_scratch(family: Family, dtype: str, engine: EngineConfig, quantize: str | None = None) -> dict[Key, int]:
    """Bytes of scratch and output of every program of an engine; minutes for a large model, the first time.

    Raises:
      ValueError: a model that cannot be compiled yet.
    """
    # The pool is an argument of the programs: its size is not part of their scratch, and need not be of the key.
    engine = dataclasses.replace(engine, kv_pages=2)
    place = platform.cache_folder()
    file = place / "scratch" / f"{_key(family, dtype, engine, quantize)}.json" if place else None
    if file and file.is_file():
        return {tuple(key): size for key, size in json.loads(file.read_text(encoding="utf-8"))}
    platform.use_compilation_cache()
    here = jax.sharding.SingleDeviceSharding(platform.find_device(None))
    tree = quantized_tree(family, dtype, quantization(quantize))
    shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=here), tree)
    programs = Programs(shapes, family, engine)
    scratch = {key: compiled(programs[key]) for key in programs.buckets.keys(engine)}
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps([[list(key), size] for key, size in scratch.items()]), encoding="utf-8")
        part.replace(file)
    return scratch


def _key(family: Family, dtype: str, engine: EngineConfig, quantize: str | None) -> str:
    """Of everything that the programs depend on."""
    machine = [jax.__version__, platform.find_device(None).device_kind]
    settings = [family.to_json(), dataclasses.asdict(engine), dtype, quantize, *machine]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    root = Path(str(resources.files("jaxphoton"))).parent
    for name in SOURCES:
        for source in sorted((root / name).rglob("*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:32]
