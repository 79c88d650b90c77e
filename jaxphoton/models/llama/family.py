"""What families around this decoder share: `protocol.Family`, but for pictures and prompts. No jax at import."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

from jaxphoton.constraints.grammar import Grammar, State
from jaxphoton.models.llama.config import GenerationConfig, TextConfig
from jaxphoton.models.protocol import CacheSpec, Network, Readout, TokenizerPlace
from jaxphoton.requests.settings import Settings


class LlamaFamily:
    """Causal, with tokens that are ids alone and prefixes of several lengths.

    Args:
      config: of the family.
      stops: ids that end a text, beside those of its `generation_config.json`.
      defaults: of texts, where that says nothing.
    """

    causal: bool = True
    fixed_prefix: bool = False
    reasons: bool = False
    answer_id: int | None = None
    readout: Readout | None = None

    def __init__(self, config: Any, stops: Iterable[int], defaults: Settings):
        text: TextConfig = config.text
        generation: GenerationConfig = config.generation
        self.config: Any = config
        self.vocab_size, self.width, self.heads = text.vocab_size, text.hidden_size, text.num_attention_heads
        self.cache = CacheSpec(text.num_hidden_layers, text.num_key_value_heads, text.head_dim)
        self.stop_ids = frozenset({*stops, *generation.eos_token_id})
        self.grammars: Mapping[str, Grammar] = {"text": Grammar({"text": State(stop=self.stop_ids)})}
        self.tokenizer = TokenizerPlace()
        self.defaults: Settings = generation.settings(defaults)
        self._network: Network | None = None

    def with_coordinates(self, divisor: str) -> Self:
        if divisor != "bins":
            raise ValueError("this model has no coordinates")
        return self

    def layer_scratch(self, tokens: int, item: int, ways: int = 1) -> int:
        """Of the wider of the two: q, k, v and what is attended to, or gate, values and their product."""
        c: TextConfig = self.config.text
        attention = 2 * (c.num_attention_heads + c.num_key_value_heads) * c.head_dim
        return tokens * (max(attention, 3 * c.intermediate_size) // ways + 2 * c.hidden_size) * item
