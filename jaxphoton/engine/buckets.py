"""The shapes that programs are compiled for, and the memory that each needs while it runs. No jax.

Memory is estimated from shapes, or read from XLA once a program is compiled. The estimates are those of the plain
programs, in which attention gathers a sequence's keys and values and holds all scores. Against XLA's analysis on a CPU
(Moondream 2 in float32) they are within 6%, but a quarter too low for an image of one crop and a quarter too high for
short prompts. Kernels and the loops of a CPU, which neither gather nor hold all scores, need less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxphoton.config import EngineConfig
from jaxphoton.models.protocol import Family

Key = tuple[Any, ...]  # of a program: its name and the numbers of its bucket

STEPS = ("step", "forward", "sample")
FLOAT32 = 4
SAMPLE_COPIES = 8  # of the logits: sorted values and indices, probabilities, running sums, as XLA's CPU analysis has it


@dataclass(frozen=True, slots=True)
class Buckets:
    """The shapes that are compiled."""

    step: tuple[int, ...]
    prefill: tuple[tuple[int, int], ...]  # (rows, length)
    prefix: tuple[tuple[int, int], ...]  # (images, length)
    vision: tuple[tuple[int, int], ...]  # (images, crops)

    def keys(self, config: EngineConfig) -> list[Key]:
        """The keys of all programs."""
        keys: list[Key] = [("step", rows) for rows in self.step]
        if config.host_masks:
            keys += [(name, self.step[-1]) for name in ("forward", "sample")]
        keys += [("prefill", *bucket) for bucket in self.prefill]
        keys += [("prefix", *bucket) for bucket in self.prefix]
        if config.adapter_slots:
            keys.append(("adapter", config.adapter_slots))
        return keys + [("vision", *bucket) for bucket in self.vision]


def make_buckets(config: EngineConfig, family: Family) -> Buckets:
    """The buckets that a configuration asks for and that its rows can fill; one of each kind with `fixed_shapes`."""
    step = _holding(config.step_rows, config.max_rows)
    if config.fixed_shapes:
        prefix = (1, family.prefix_lengths[-1])
        return Buckets(step[-1:], ((1, max(config.prefill_lengths)),), (prefix,), ((1, family.max_crops),))
    together = _holding(config.prefill_rows, config.max_rows)
    vision = config.vision or family.vision_buckets(min(together[-1], config.max_rows))
    prefill = tuple((rows, length) for rows in together for length in config.prefill_lengths)
    prefix = tuple((images, length) for images in sorted({i for i, _ in vision}) for length in family.prefix_lengths)
    return Buckets(step, prefill, prefix, tuple(sorted(vision, key=lambda size: (size[1], size[0]))))


def _holding(sizes: tuple[int, ...], rows: int) -> tuple[int, ...]:
    """Those up to the first that holds so many rows, of sizes that ascend."""
    return tuple(size for size, before in zip(sizes, (0, *sizes), strict=False) if before < rows)


def table_width(max_positions: int, page_size: int) -> int:
    """Pages of the longest sequence; the padding gap behind an image prefix may cost up to one page more."""
    return -(-max_positions // page_size) + 1


def estimate(key: Key, family: Family, engine: EngineConfig, item: int, ways: int = 1) -> int:
    """Bytes of scratch and output of one program, whose numbers are `item` bytes, on one of the `ways` devices that
    share heads and inner widths.

    Attention of B rows, T queries and S keys: gathered keys and values 2 B S K H, scores in float32 and weights
    B N T S; the rest of a layer as the family says.
    """
    spec, (name, count) = family.cache, key[:2]
    if name == "adapter":
        return 0  # in place
    stored = engine.page_size * table_width(family.max_context, engine.page_size)
    if name == "vision":
        return family.encode_scratch(count, key[2], item, ways)
    sampled = count * family.vocab_size * FLOAT32
    if name == "sample":
        return SAMPLE_COPIES * sampled
    length = 1 if name in ("step", "forward") else key[2]
    gathered = 2 * count * stored * spec.n_kv_heads * spec.head_dim * item
    attention = (gathered + _attention(count, family.heads, length, stored, item)) // ways
    layers = attention + family.layer_scratch(count * length, item, ways)
    if name == "prefix":
        return layers
    if name == "forward":
        return layers + sampled
    return max(layers + sampled, SAMPLE_COPIES * sampled)


def compiled(program: Any) -> int:
    """Bytes of scratch and output of a compiled program (`jax.stages.Compiled`), donated arrays left out."""
    memory = program.memory_analysis()
    return memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes


def _attention(rows: int, heads: int, queries: int, keys: int, item: int) -> int:
    return rows * heads * queries * keys * (FLOAT32 + item)
