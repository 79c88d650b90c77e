"""What the parts of a request cost at the least: bytes to and from device memory, and floating-point operations.

Pure functions of a family's settings; no jax. The formulas are the family's (`models.costs`). Every image prefix and
prompt position is counted, padding of buckets is not.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from jaxphoton.config.quantization import quantization
from jaxphoton.messages import quoted
from jaxphoton.models.costs import Collective, Cost, Costs, Storage
from jaxphoton.models.protocol import Family
from jaxphoton.models.registry import companion, named_family, packaged, read_family
from jaxphoton.weights import hub

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def item_bytes(dtype: str) -> int:
    """Bytes of one number.

    Raises:
      ValueError: a dtype that models are not loaded in.
    """
    if dtype not in ITEM_BYTES:
        raise ValueError(f"dtype must be one of {', '.join(ITEM_BYTES)}, got {dtype!r}")
    return ITEM_BYTES[dtype]


def costs_of(family: Family) -> Costs:
    """
    Raises:
      ValueError: the family tells of none.
    """
    return companion(family, "costs").costs(family)


def storage_of(dtype: str, quantize: str | None = None) -> Storage:
    """Numbers of a dtype, matrices as `quantize` says (of `config.quantization`; None for none in few bits).

    Raises:
      ValueError: a dtype that models are not loaded in, or no such way to quantize.
    """
    return Storage(item_bytes(dtype), quantization(quantize))


def weight_bytes(family: Family, dtype: str, quantize: str | None = None) -> dict[str, int]:
    """Bytes of the parameters by part as they lie on the device."""
    return costs_of(family).weights(storage_of(dtype, quantize))


def parameter_count(family: Family) -> int:
    return sum(costs_of(family).parameters().values())


def encode_cost(family: Family, dtype: str, crops: int, images: int = 1, quantize: str | None = None) -> Cost:
    """Crops of `images` pictures, all together, to their embeddings."""
    return costs_of(family).encode(images, crops, storage_of(dtype, quantize))


def prefix_cost(
    family: Family, dtype: str, images: int = 1, quantize: str | None = None, length: int | None = None
) -> Cost:
    """Image prefixes into the cache, of the longest length unless said."""
    return costs_of(family).prefix(images, length or family.prefix_lengths[-1], storage_of(dtype, quantize))


def prefill_cost(family: Family, dtype: str, rows: int, length: int, past: int, quantize: str | None = None) -> Cost:
    """Prompts of T = `length` positions behind `past` positions that are in the cache, and the first token.

    Every position passes the layers, one of each row the vocabulary head; attention is causal. The readout is not
    counted.
    """
    tokens = rows * length
    pairs = rows * (length * past + length * (length + 1) // 2)
    storage = storage_of(dtype, quantize)
    return costs_of(family).text(tokens, rows, pairs, rows * (past + length), storage, readout=False)


def step_cost(
    family: Family, dtype: str, rows: int, context: int, readout: bool = True, quantize: str | None = None
) -> Cost:
    """One decode step of B rows that attend to S = `context` positions each, their own included; `readout` is what
    boxes and points read and texts do not. Of B S positions of keys and values one a row is written."""
    positions = rows * context
    return costs_of(family).text(rows, rows, positions, positions, storage_of(dtype, quantize), readout)


def collectives(family: Family, dtype: str, name: str, devices: int) -> list[Collective]:
    """What so many devices that share a model do together in a part, by its name as in `roofline.cost_of`:
    "encode I x C", "prefix I" or "step B"."""
    kind, count, *more = re.findall(r"\w+", name)
    costs, item, number = costs_of(family), item_bytes(dtype), int(count)
    if kind == "encode":
        return costs.encode_collectives(devices * -(-number * int(more[-1]) // devices), item)
    if kind == "prefix":
        return costs.prefix_collectives(number, int(more[-1]) if more else family.prefix_lengths[-1], item)
    return costs.text_collectives(number, number, item)


def planned_family(name: str) -> Family:
    """A model to plan for: one whose settings are in the package, "shapes", or a checkpoint's folder or file.

    Nothing is downloaded.

    Raises:
      ValueError: no such model; ConfigError, which is one, if its settings cannot be read.
    """
    if name in packaged():
        return named_family(name)
    path = hub.resolve(name) if name == hub.SHAPES else Path(os.path.expanduser(name))
    if not os.path.lexists(path):
        known = f"{', '.join(packaged())}, {hub.SHAPES}, or a checkpoint's folder"
        raise ValueError(f"no model {quoted(name)}; give one of {known}")
    return read_family((path if os.path.isdir(path) else path.parent) / "config.json")
