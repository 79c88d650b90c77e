"""How a device's memory is shared out: weights, scratch of the programs, and pages of keys and values. No jax.

The engine sizes its pool with these functions, and `jaxphoton plan` adds up the same sum before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxphoton.config import EngineConfig
from jaxphoton.engine.layout import table_width
from jaxphoton.engine.scratch import STEPS, Key
from jaxphoton.models.moondream.config import TextConfig


class DeviceMemoryError(ValueError):
    """The device is too small for what is asked of it."""


def kv_position_bytes(text: TextConfig, item: int) -> int:
    """Bytes of one position's keys and values in all layers: 2 L K H numbers of `item` bytes."""
    return 2 * text.n_layers * text.n_kv_heads * text.head_dim * item


def row_state_bytes(rows: int) -> int:
    """Bytes of `state.RowState`: four int32 and two float32 a row, and a row for padding."""
    return (rows + 1) * (4 * 4 + 2 * 4)


def request_pages(text: TextConfig, page_size: int, positions: int) -> int:
    """Pages of a request with an image of that many positions in all, the hole behind its prefix included."""
    hole = -text.prefix_attn % page_size if positions > text.prefix_attn else 0
    return -(-(positions + hole) // page_size)


def whole_pages(text: TextConfig, engine: EngineConfig) -> int:
    """Pages with which `max_rows` sequences of a whole context never wait for one another; page 0 is nobody's."""
    return 1 + engine.max_rows * table_width(text.max_context, engine.page_size)


def pool_pages(text: TextConfig, engine: EngineConfig, item: int, limit: int | None, used: int, scratch: int) -> int:
    """Pages of the key/value pool.

    `engine.kv_pages` where that is set; else as many as fit, but no more than `whole_pages`.

    Args:
      text: the decoder's settings.
      engine: whose `memory_fraction` of `limit` may be used.
      item: bytes of a key's or value's number.
      limit: bytes that the device's allocator can hand out, None where it does not say (a CPU): all `whole_pages`.
      used: bytes already handed out, the weights among them.
      scratch: bytes to keep free for programs (`scratch_bytes`).

    Raises:
      DeviceMemoryError: one request with an image and one chunk of a prompt would not fit.
    """
    if engine.kv_pages is not None:
        return engine.kv_pages
    most = whole_pages(text, engine)
    if limit is None:
        return most
    page = engine.page_size * kv_position_bytes(text, item)
    usable = int(limit * engine.memory_fraction)
    rest = usable - used - scratch - row_state_bytes(engine.max_rows)
    prompt = min(text.max_context, text.prefix_attn + max(engine.prefill_lengths))
    least = 1 + request_pages(text, engine.page_size, prompt)
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
    """

    weights: Mapping[str, int]
    max_rows: int
    pages: int
    page_bytes: int
    scratch: Mapping[Key, int]
    source: str

    @property
    def weights_bytes(self) -> int:
        return sum(self.weights.values())

    @property
    def kv_bytes(self) -> int:
        return self.pages * self.page_bytes

    @property
    def row_state_bytes(self) -> int:
        return row_state_bytes(self.max_rows)

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
        return [f"{name:<16} {human(size):>12}  {note}".rstrip() for name, size, note in parts]

    def _note(self, scratch: dict[str, int]) -> str:
        return f"{self.source}; most in {max(scratch, key=lambda name: scratch[name], default='none')}"


def size_pool(
    text: TextConfig,
    engine: EngineConfig,
    item: int,
    weights: Mapping[str, int],
    scratch: Mapping[Key, int],
    source: str,
    limit: int | None,
    used: int,
) -> MemoryPlan:
    """The plan of an engine on a device; arguments as in `pool_pages` and `MemoryPlan`.

    Raises:
      DeviceMemoryError: not one request fits.
    """
    pages = pool_pages(text, engine, item, limit, used, scratch_bytes(scratch))
    page = engine.page_size * kv_position_bytes(text, item)
    return MemoryPlan(weights, engine.max_rows, pages, page, scratch, source)


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
