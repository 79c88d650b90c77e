"""How a device's memory is shared out: weights, scratch of the programs, and pages of keys and values. No jax.

The engine sizes its pool with these functions, and `jaxphoton plan` adds up the same sum before anything is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxphoton.config import EngineConfig
from jaxphoton.engine.buckets import STEPS, Key, table_width
from jaxphoton.models.protocol import CacheSpec, Family


class DeviceMemoryError(ValueError):
    """The device is too small for what is asked of it."""


def kv_position_bytes(spec: CacheSpec, item: int) -> int:
    """Bytes of one position's keys and values in all layers: 2 L K H numbers of `item` bytes."""
    return 2 * spec.n_layers * spec.n_kv_heads * spec.head_dim * item


def row_state_bytes(family: Family, rows: int) -> int:
    """Bytes of `state.RowState`: three int32 and what a token carries a row, and a row for padding."""
    fed = 0 if family.readout is None else family.readout.fed
    return (rows + 1) * 4 * (3 + fed)


def request_pages(family: Family, page_size: int, positions: int) -> int:
    """Pages of a request with an image of that many positions in all, the padding gap behind its prefix included."""
    prefix = family.prefix_lengths[-1]
    gap = -prefix % page_size if positions > prefix else 0
    return -(-(positions + gap) // page_size)


def whole_pages(max_context: int, engine: EngineConfig) -> int:
    """Pages with which `max_rows` sequences of a whole context never wait for one another; page 0 is nobody's."""
    return 1 + engine.max_rows * table_width(max_context, engine.page_size)


def pool_pages(
    family: Family, engine: EngineConfig, item: int, limit: int | None, used: int, scratch: int, ways: int = 1
) -> int:
    """Pages of the key/value pool.

    `engine.kv_pages` where that is set; else as many as fit, but no more than `whole_pages`.

    Args:
      family: of the model.
      engine: whose `memory_fraction` of `limit` may be used.
      item: bytes of a key's or value's number.
      limit: bytes that the device's allocator can hand out, None where it does not say (a CPU): all `whole_pages`.
      used: bytes already handed out, the weights among them.
      scratch: bytes to keep free for programs (`scratch_bytes`).
      ways: devices that share the key/value heads; all bytes are those of one.

    Raises:
      DeviceMemoryError: one request with an image and one chunk of a prompt would not fit.
    """
    if engine.kv_pages is not None:
        return engine.kv_pages
    most = whole_pages(family.max_context, engine)
    if limit is None:
        return most
    page = engine.page_size * kv_position_bytes(family.cache, item) // ways
    usable = int(limit * engine.memory_fraction)
    rest = usable - used - scratch - row_state_bytes(family, engine.max_rows)
    prompt = min(family.max_context, family.prefix_lengths[-1] + max(engine.prefill_lengths))
    least = 1 + request_pages(family, engine.page_size, prompt)
    if rest < least * page:
        raise DeviceMemoryError(
            f"the device's memory is too small: {human(usable)} may be used (memory_fraction {engine.memory_fraction:g}"
            f" of {human(limit)}), {human(used)} are taken by weights and whatever else runs there and "
            f"{human(scratch)} by programs; one request with an image needs {human(least * page)} more"
        )
    pages = min(most, rest // page)
    # The kernels' offsets are 32 bits wide up to 2^32 bytes, which one-byte numbers count beyond.
    numbers = page // (2 * item)
    return 2**31 // numbers if item == 1 and 2**31 < pages * numbers <= 2**32 else pages


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Where the bytes go.

    Attributes:
      weights: bytes by part of the model.
      max_rows: sequences decoded at once.
      pages: of the pool, page 0 included.
      page_bytes: keys and values of one page.
      scratch: bytes that each program needs while it runs, by its key.
      source: where the scratch figures are from.
      row_state_bytes: what the rows remember from step to step.
    """

    weights: Mapping[str, int]
    max_rows: int
    pages: int
    page_bytes: int
    scratch: Mapping[Key, int]
    source: str
    row_state_bytes: int

    @property
    def weights_bytes(self) -> int:
        return sum(self.weights.values())

    @property
    def kv_bytes(self) -> int:
        return self.pages * self.page_bytes

    @property
    def temporaries(self) -> dict[str, int]:
        """Of the programs of a decode step, one of which runs at a time."""
        return {_name(key): size for key, size in self.scratch.items() if key[0] in STEPS}

    @property
    def activations(self) -> dict[str, int]:
        """Of the programs that read images and prompts."""
        return {_name(key): size for key, size in self.scratch.items() if key[0] not in STEPS}

    @property
    def temporaries_bytes(self) -> int:
        return max(self.temporaries.values(), default=0)

    @property
    def activation_bytes(self) -> int:
        return max(self.activations.values(), default=0)

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.row_state_bytes + scratch_bytes(self.scratch)

    def lines(self) -> list[str]:
        """A table for people, one line a part."""
        parts = [(f"weights, {name}", size, "") for name, size in self.weights.items()]
        parts += [
            ("keys and values", self.kv_bytes, f"{self.pages} pages of {human(self.page_bytes)}"),
            ("row state", self.row_state_bytes, f"{self.max_rows} rows"),
            ("temporaries", self.temporaries_bytes, self._note(self.temporaries)),
            ("activations", self.activation_bytes, self._note(self.activations)),
            ("total", self.total_bytes, ""),
        ]
        return [f"{name:<17} {human(size):>12}  {note}".rstrip() for name, size, note in parts]

    def _note(self, scratch: dict[str, int]) -> str:
        return f"{self.source}; most in {max(scratch, key=lambda name: scratch[name], default='none')}"


def device_bytes(leaf: Any) -> int:
    """Of an array, or what describes one, on one of the devices that it lies on: with a sharding, its largest share."""
    sharding = getattr(leaf, "sharding", None)
    shape = leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)
    return math.prod(shape) * leaf.dtype.itemsize


def adapter_bytes(room: Iterable[Any]) -> int:
    """Of the leaves of slots of adapters, and as much again: so many adapters wait on the device for a slot."""
    return 2 * sum(map(device_bytes, room))


def size_pool(
    family: Family,
    engine: EngineConfig,
    item: int,
    weights: Mapping[str, int],
    scratch: Mapping[Key, int],
    source: str,
    limit: int | None,
    used: int,
    ways: int = 1,
) -> MemoryPlan:
    """The plan of an engine on a device; arguments as in `pool_pages` and `MemoryPlan`.

    Raises:
      DeviceMemoryError: not one request fits.
    """
    pages = pool_pages(family, engine, item, limit, used, scratch_bytes(scratch), ways)
    page = engine.page_size * kv_position_bytes(family.cache, item) // ways
    rows = row_state_bytes(family, engine.max_rows)
    return MemoryPlan(weights, engine.max_rows, pages, page, scratch, source, rows)


def scratch_bytes(scratch: Mapping[Key, int]) -> int:
    """What to keep free for programs: the largest of a step and the largest of the rest, because images and prompts
    are enqueued while a step still runs."""
    groups = [[size for key, size in scratch.items() if (key[0] in STEPS) == steps] for steps in (True, False)]
    return sum(max(sizes, default=0) for sizes in groups)


def _name(key: Key) -> str:
    return f"{key[0]} {'x'.join(str(number) for number in key[1:])}"


def human(size: int) -> str:
    """Bytes as people read them: `1.86 GiB`."""
    power = min(3, max(0, size.bit_length() - 1) // 10)
    return f"{size} B" if power == 0 else f"{size / 1024**power:.2f} {('', 'KiB', 'MiB', 'GiB')[power]}"
