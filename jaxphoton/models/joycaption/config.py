"""Settings of a model, under the names that its `config.json` has for them. Defaults are those of the classes that the
files are of: such a file leaves out what equals them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from jaxphoton.config.fields import MOST, check_fields, choice, fitting, flag, is_whole, real, require, whole

MAX_WIDTH = 2**16  # of activations between layers
MAX_INNER = 2**20  # of those inside one
MAX_LAYERS = 1024
MAX_HEADS = 4096
MAX_VOCABULARY = 2**21
MAX_PARAMETERS = 2**40  # in all matrices
LAYER_NORM_EPSILON = 1e-6  # of the vision encoder; no published file says another


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """The vision encoder (SigLIP). Lengths in pixels."""

    hidden_size: int = whole(768, 1, MAX_WIDTH)
    intermediate_size: int = whole(3072, 1, MAX_INNER)
    num_hidden_layers: int = whole(12, 1, MAX_LAYERS)
    num_attention_heads: int = whole(12, 1, MAX_HEADS)
    image_size: int = whole(224, 1, 4096)
    patch_size: int = whole(16, 1, 1024)

    @property
    def grid(self) -> int:
        """Whole patches along one side of a picture; pixels behind the last are not read."""
        return self.image_size // self.patch_size

    @property
    def image_tokens(self) -> int:
        return self.grid**2

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def patch_dim(self) -> int:
        return 3 * self.patch_size**2

    def __post_init__(self):
        check_fields(self, "vision_config")
        _require_multiple("vision_config.hidden_size", self.hidden_size, self.num_attention_heads)
        room = self.grid > 0
        require(room, f"vision_config.patch_size ({self.patch_size}) is more than image_size ({self.image_size})")


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
        _require_multiple("text_config.num_attention_heads", self.num_attention_heads, self.num_key_value_heads)
        require(self.head_dim % 2 == 0, f"text_config.head_dim must be even, not {self.head_dim}: it rotates in pairs")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """All settings of one model.

    Attributes:
      vision_feature_layer: whose output the projector reads: 0 is the input of the first layer of the vision encoder,
        i the output of layer i; -1 and down count from the last.
      image_token_index: the id that stands for an image embedding in a text.
      eos_token_id: ids that end a text.
      tie_word_embeddings: whether the embeddings are the head's matrix.
    """

    vision: VisionConfig = field(default_factory=VisionConfig)
    text: TextConfig = field(default_factory=TextConfig)
    vision_feature_layer: int = whole(-2, -MAX_LAYERS, MAX_LAYERS)
    image_token_index: int = whole(32000, 0, MAX_VOCABULARY)
    bos_token_id: int = whole(1, 0, MAX_VOCABULARY)
    eos_token_id: tuple[int, ...] = fitting(
        (2,), lambda ids: isinstance(ids, tuple) and len(ids) > 0 and all(_is_id(i) for i in ids), "one or more ids"
    )
    tie_word_embeddings: bool = flag(False)

    @property
    def vision_layers(self) -> int:
        """How many layers of the vision encoder are run."""
        layer = self.vision_feature_layer
        return layer if layer >= 0 else self.vision.num_hidden_layers + 1 + layer

    def __post_init__(self):
        check_fields(self, "settings")
        layers, text = self.vision.num_hidden_layers, self.text
        require(
            1 <= self.vision_layers <= layers,
            f"vision_feature_layer ({self.vision_feature_layer}) must name one of {layers} layers",
        )
        for name, ids in (
            ("image_token_index", (self.image_token_index,)),
            ("bos_token_id", (self.bos_token_id,)),
            ("eos_token_id", self.eos_token_id),
        ):
            beyond = next((index for index in ids if index >= text.vocab_size), None)
            require(beyond is None, f"{name} holds {beyond}, which is no token id: vocab_size is {text.vocab_size}")
        size = _matrices(self)
        require(size <= MAX_PARAMETERS, f"these settings have {size:.3g} parameters: the most is {MAX_PARAMETERS:.3g}")


def _is_id(value: object) -> bool:
    return is_whole(value, 0, MAX_VOCABULARY)


def _require_multiple(name: str, value: int, divisor: int) -> None:
    require(value % divisor == 0, f"{name} ({value}) must be a multiple of {divisor}, the number of its (shared) heads")


def _matrices(config: ModelConfig) -> int:
    """Parameters in the matrices: nearly all there are."""
    vision, text = config.vision, config.text
    encoder = config.vision_layers * vision.hidden_size * (4 * vision.hidden_size + 2 * vision.intermediate_size)
    attention = 2 * (text.num_attention_heads + text.num_key_value_heads) * text.head_dim
    layers = text.num_hidden_layers * text.hidden_size * (attention + 3 * text.intermediate_size)
    projector = text.hidden_size * (vision.hidden_size + text.hidden_size)
    return encoder + projector + layers + 2 * text.vocab_size * text.hidden_size
