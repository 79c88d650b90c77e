"""Settings of the text decoder, under the names that `text_config` has for them in a `config.json`. Defaults are those
of the class that the files are of: such a file leaves out what equals them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from jaxphoton.config.fields import MOST, check_fields, choice, fitting, is_whole, real, require, whole
from jaxphoton.models.limits import MAX_HEADS, MAX_INNER, MAX_LAYERS, MAX_VOCABULARY, MAX_WIDTH
from jaxphoton.models.siglip.config import require_multiple
from jaxphoton.requests.settings import Settings


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary positions; all but the first two are of the type "llama3"."""

    rope_theta: float = real(10_000.0, 1.0, 1e12)
    rope_type: Literal["default", "llama3"] = choice("default", "llama3")
    factor: float = real(1.0, 1.0, 1e6)
    low_freq_factor: float = real(1.0, 0.0, 1e6)
    high_freq_factor: float = real(4.0, 0.0, 1e6)
    original_max_position_embeddings: int = whole(8192, 1, MOST)

    def __post_init__(self):
        check_fields(self, "text_config.rope_parameters")
        low, high = self.low_freq_factor, self.high_freq_factor
        ascending = low < high
        require(ascending, f"rope_parameters.low_freq_factor ({low}) must be less than high_freq_factor ({high})")


@dataclass(frozen=True, slots=True)
class TextConfig:
    """The text decoder (Llama)."""

    hidden_size: int = whole(4096, 1, MAX_WIDTH)
    intermediate_size: int = whole(11008, 1, MAX_INNER)
    num_hidden_layers: int = whole(32, 1, MAX_LAYERS)
    num_attention_heads: int = whole(32, 1, MAX_HEADS)
    num_key_value_heads: int = whole(32, 1, MAX_HEADS)
    head_dim: int = whole(128, 2, MAX_WIDTH)
    vocab_size: int = whole(32000, 1, MAX_VOCABULARY)
    max_position_embeddings: int = whole(2048, 1, MOST)
    rms_norm_eps: float = real(1e-6, 1e-30, 1.0)
    rope: RopeConfig = field(default_factory=RopeConfig)

    def __post_init__(self):
        check_fields(self, "text_config")
        require_multiple("text_config.num_attention_heads", self.num_attention_heads, self.num_key_value_heads)
        require(self.head_dim % 2 == 0, f"text_config.head_dim must be even, not {self.head_dim}: it rotates in pairs")

    @property
    def matrices_size(self) -> int:
        """Parameters in the matrices, with those of embeddings and head."""
        attention = 2 * (self.num_attention_heads + self.num_key_value_heads) * self.head_dim
        layer = self.hidden_size * (attention + 3 * self.intermediate_size)
        return self.num_hidden_layers * layer + 2 * self.vocab_size * self.hidden_size


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """What a `generation_config.json` beside the settings says of how to generate.

    Attributes:
      eos_token_id: ids that end a text, beside those of the settings.
      temperature, top_p: None where it says nothing.
    """

    eos_token_id: tuple[int, ...] = fitting((), lambda ids: are_ids(ids), "a list of ids")
    temperature: float | None = real(None, 0.0, 1000.0)
    top_p: float | None = real(None, 1e-6, 1.0)

    def __post_init__(self):
        check_fields(self, "generation_config")

    def settings(self, defaults: Settings) -> Settings:
        """How texts are generated where nobody says; `defaults` where this does not say either."""
        given = {"temperature": self.temperature, "top_p": self.top_p}
        return Settings.parse(given, defaults)


def are_ids(value: object) -> bool:
    return isinstance(value, tuple) and all(is_whole(each, 0, MAX_VOCABULARY) for each in value)
