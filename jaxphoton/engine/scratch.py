"""Memory that a compiled program needs while it runs, and hands back: estimated from shapes, or read from XLA. No jax.

The estimates are those of the plain programs, in which attention gathers a sequence's keys and values and holds all
scores. Against XLA's analysis on a CPU (Moondream 2 in float32) they are within 6%, but 14% too low for an image of two
crops and a quarter too high for short prompts. Kernels, which neither gather nor hold scores, need less.
"""

from __future__ import annotations

from typing import Any

from jaxphoton.config import EngineConfig
from jaxphoton.engine.buckets import Buckets
from jaxphoton.engine.layout import table_width
from jaxphoton.models.moondream.config import ModelConfig, TextConfig

Key = tuple[Any, ...]  # of a program: its name and the numbers of its bucket

STEPS = ("step", "forward", "sample")
FLOAT32 = 4
EXPERT_TOKENS = 256  # tokens that go through all experts at once (`jaxphoton.layers.moe`)
SAMPLE_COPIES = 8  # of the logits: sorted values and indices, probabilities, running sums, as XLA's CPU analysis has it


def program_keys(buckets: Buckets, host_masks: bool) -> list[Key]:
    """The keys of all compiled programs."""
    keys: list[Key] = [("step", rows) for rows in buckets.step]
    if host_masks:
        keys += [(name, buckets.step[-1]) for name in ("forward", "sample")]
    keys += [("prefill", *bucket) for bucket in buckets.prefill]
    keys += [("prefix", images) for images in buckets.prefix]
    return keys + [("vision", *bucket) for bucket in buckets.vision]


def estimate(key: Key, config: ModelConfig, engine: EngineConfig, item: int) -> int:
    """Bytes of scratch and output of one program, whose numbers are `item` bytes.

    Attention of B rows, T queries and S keys: gathered keys and values 2 B S K H, scores in float32 and weights
    B N T S; linear layers: qkv, twice the inner width and twice the model width for each of B T positions.
    """
    text, (name, count) = config.text, key[:2]
    stored = engine.page_size * table_width(text.max_context, engine.page_size)
    if name == "vision":
        return _vision(config, count, key[2], item)
    if name == "prefix":
        length = text.prefix_attn
        return _attention(count, text.n_heads, length, length, item) + _linear(text, count * length, item)
    sampled = count * text.vocab_size * FLOAT32
    if name == "sample":
        return SAMPLE_COPIES * sampled
    length = key[2] if name == "prefill" else 1
    gathered = 2 * count * stored * text.n_kv_heads * text.head_dim * item
    layers = gathered + _attention(count, text.n_heads, length, stored, item) + _linear(text, count * length, item)
    if name == "forward":
        return layers + sampled
    return max(layers + sampled, SAMPLE_COPIES * sampled)


def compiled(program: Any) -> int:
    """Bytes of scratch and output of a compiled program (`jax.stages.Compiled`), donated arrays left out."""
    memory = program.memory_analysis()
    return memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes


def _vision(config: ModelConfig, images: int, crops: int, item: int) -> int:
    c = config.vision
    patches = c.image_tokens
    widths = 3 * c.enc_dim + 2 * c.enc_ff_dim + 2 * c.enc_dim
    embeddings = images * patches * c.proj_out_dim * item
    return _attention(crops, c.enc_n_heads, patches, patches, item) + crops * patches * widths * item + embeddings


def _attention(rows: int, heads: int, queries: int, keys: int, item: int) -> int:
    return rows * heads * queries * keys * (FLOAT32 + item)


def _linear(c: TextConfig, tokens: int, item: int) -> int:
    """Projections of T tokens; with experts also what all of them make of a chunk of tokens: T E I (8 + item)."""
    dense = tokens * (c.qkv_dim + 2 * c.ff_dim + 2 * c.dim) * item
    if c.moe is None:
        return dense
    inner, at_once = c.moe.expert_inner_dim, min(tokens, EXPERT_TOKENS)
    return dense + at_once * c.moe.num_experts * inner * (2 * FLOAT32 + item)
