"""The memory that the text decoder needs while it runs. No jax."""

from __future__ import annotations

from jaxphoton.models.llama.config import TextConfig


def layer_scratch(c: TextConfig, tokens: int, item: int, ways: int = 1) -> int:
    """`Family.layer_scratch`: of the wider of the two, q, k, v and what is attended to, or gate, values and their
    product."""
    attention = 2 * (c.num_attention_heads + c.num_key_value_heads) * c.head_dim
    return tokens * (max(attention, 3 * c.intermediate_size) // ways + 2 * c.hidden_size) * item
