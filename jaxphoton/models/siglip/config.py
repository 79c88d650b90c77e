"""Settings of the vision encoder, under the names that `vision_config` has for them in a `config.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxphoton.config.fields import check_fields, require, whole
from jaxphoton.models.limits import MAX_HEADS, MAX_INNER, MAX_LAYERS, MAX_WIDTH

LAYER_NORM_EPSILON = 1e-6  # no published file says another

# What a `vision_config` may say besides, in the words of `models.llama.reading.require_only`.
ONLY: tuple[tuple[str, str, Any, tuple[Any, ...]], ...] = (
    ("vision_config", "hidden_act", "gelu_pytorch_tanh", ("gelu_pytorch_tanh",)),
    ("vision_config", "num_channels", 3, (3,)),
    ("vision_config", "layer_norm_eps", LAYER_NORM_EPSILON, (LAYER_NORM_EPSILON,)),
)


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
        require_multiple("vision_config.hidden_size", self.hidden_size, self.num_attention_heads)
        room = self.grid > 0
        require(room, f"vision_config.patch_size ({self.patch_size}) is more than image_size ({self.image_size})")

    @property
    def layer_size(self) -> int:
        """Parameters in the matrices of a layer."""
        return self.hidden_size * (4 * self.hidden_size + 2 * self.intermediate_size)


def require_multiple(name: str, value: int, divisor: int) -> None:
    """
    Raises:
      ConfigError: heads do not share `value` evenly.
    """
    require(value % divisor == 0, f"{name} ({value}) must be a multiple of {divisor}, the number of its (shared) heads")
