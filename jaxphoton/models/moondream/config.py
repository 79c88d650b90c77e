"""Settings of a model. Ranges are far beyond every known model and keep what is built from a file bounded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from jaxphoton.config.fields import check_fields, choice, flag, part, real, require, whole
from jaxphoton.models.moondream.templates import checked

MAX_WIDTH = 2**16  # of activations between layers
MAX_INNER = 2**20  # of those inside one
MAX_LAYERS = 1024
MAX_HEADS = 4096
MAX_EXPERTS = 4096
MAX_CONTEXT = 2**17
MAX_CROP_PIXELS = 2**26  # of all crops of a picture
MAX_VOCABULARY = 2**21
MAX_PARAMETERS = 2**40  # in all matrices


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """Vision encoder and projection. Lengths in pixels unless said; `overlap_margin` in patches."""

    enc_dim: int = whole(1152, 1, MAX_WIDTH)
    enc_patch_size: int = whole(14, 1, 1024)
    enc_n_layers: int = whole(27, 1, MAX_LAYERS)
    enc_ff_dim: int = whole(4304, 1, MAX_INNER)
    enc_n_heads: int = whole(16, 1, MAX_HEADS)
    proj_out_dim: int = whole(2048, 1, MAX_WIDTH)
    proj_inner_dim: int = whole(8192, 1, MAX_INNER)
    crop_size: int = whole(378, 1, 4096)
    in_channels: int = whole(3, 3, 3)
    max_crops: int = whole(12, 1, 256)
    overlap_margin: int = whole(4, 0, 1024)

    @property
    def grid(self) -> int:
        """Patches along one side of a crop (27 in the released models)."""
        return self.crop_size // self.enc_patch_size

    @property
    def image_tokens(self) -> int:
        return self.grid**2

    @property
    def head_dim(self) -> int:
        return self.enc_dim // self.enc_n_heads

    @property
    def patch_dim(self) -> int:
        return self.in_channels * self.enc_patch_size**2

    def __post_init__(self):
        check_fields(self, "vision")
        crop, patch, margin = self.crop_size, self.enc_patch_size, self.overlap_margin
        require(crop % patch == 0, f"vision.crop_size ({crop}) must be a multiple of enc_patch_size ({patch})")
        _require_multiple("vision.enc_dim", self.enc_dim, "enc_n_heads", self.enc_n_heads)
        room = f"a tile is crop_size / enc_patch_size = {self.grid} patches wide"
        require(2 * margin < self.grid, f"vision.overlap_margin ({margin}) leaves no room for a tile: {room}")
        pixels = self.max_crops * crop**2
        require(
            pixels <= MAX_CROP_PIXELS,
            f"vision.max_crops ({self.max_crops}) crops of crop_size {crop} are {pixels} pixels: the most is "
            f"{MAX_CROP_PIXELS}",
        )


@dataclass(frozen=True, slots=True)
class MoeConfig:
    """Mixture of experts in the text layers from `start_layer` on."""

    num_experts: int = whole(64, 1, MAX_EXPERTS)
    start_layer: int = whole(4, 0, MAX_LAYERS)
    experts_per_token: int = whole(8, 1, MAX_EXPERTS)
    expert_inner_dim: int = whole(1024, 1, MAX_INNER)

    def __post_init__(self):
        check_fields(self, "text.moe")
        require(
            self.experts_per_token <= self.num_experts,
            f"text.moe.experts_per_token ({self.experts_per_token}) must be at most num_experts ({self.num_experts})",
        )


@dataclass(frozen=True, slots=True)
class TextConfig:
    """Text decoder. `prefix_attn` is the length of the bidirectional prefix (BOS and the image)."""

    dim: int = whole(2048, 1, MAX_WIDTH)
    ff_dim: int = whole(8192, 1, MAX_INNER)
    n_layers: int = whole(24, 1, MAX_LAYERS)
    vocab_size: int = whole(51200, 1, MAX_VOCABULARY)
    max_context: int = whole(2048, 1, MAX_CONTEXT)
    n_heads: int = whole(32, 1, MAX_HEADS)
    n_kv_heads: int = whole(32, 1, MAX_HEADS)
    prefix_attn: int = whole(730, 1, MAX_CONTEXT)
    rope_theta: float = real(10_000.0, 1.0, 1e12)
    tau_attn: bool = flag(False)
    moe: MoeConfig | None = part(MoeConfig)

    @property
    def head_dim(self) -> int:
        return self.dim // self.n_heads

    @property
    def rotary_dim(self) -> int:
        return self.head_dim // 2

    @property
    def qkv_dim(self) -> int:
        return (self.n_heads + 2 * self.n_kv_heads) * self.head_dim

    def __post_init__(self):
        check_fields(self, "text")
        _require_multiple("text.dim", self.dim, "n_heads", self.n_heads)
        require(
            self.head_dim % 4 == 0,
            f"the text head dim, text.dim / n_heads, must be a multiple of 4 (half of it rotates in pairs), not "
            f"{self.head_dim}",
        )
        _require_multiple("text.n_heads", self.n_heads, "n_kv_heads", self.n_kv_heads)
        if self.tau_attn:
            same = self.n_kv_heads == self.n_heads
            require(same, f"tau attention needs text.n_kv_heads ({self.n_kv_heads}) to equal n_heads ({self.n_heads})")
        if self.moe is not None:
            start, last = self.moe.start_layer, self.n_layers - 1
            require(start <= last, f"text.moe.start_layer must be a layer, from 0 to {last}, not {start}")


@dataclass(frozen=True, slots=True)
class RegionConfig:
    """Coordinate and size heads. `size_bins` is the scale of the size bins (models before March 2025: linear)."""

    dim: int = whole(2048, 1, MAX_WIDTH)
    coord_feat_dim: int = whole(256, 2, MAX_WIDTH)
    coord_out_dim: int = whole(1024, 2, MAX_INNER)
    size_feat_dim: int = whole(512, 2, MAX_WIDTH)
    size_out_dim: int = whole(2048, 4, MAX_INNER)
    inner_dim: int = whole(8192, 1, MAX_INNER)
    decoder_arch: Literal["mlp", "linear"] = choice("mlp", "linear")
    use_ln: bool = flag(False)
    size_bins: Literal["log", "linear"] = choice("log", "linear")
    coord_divisor: Literal["bins", "bins-1"] = choice("bins", "bins-1")

    def __post_init__(self):
        check_fields(self, "region")
        for name in ("coord_feat_dim", "size_feat_dim", "size_out_dim"):
            value = getattr(self, name)
            require(value % 2 == 0, f"region.{name} must be even, not {value}: it has two halves")


@dataclass(frozen=True, slots=True)
class TokenizerConfig:
    """Special ids, and the prompt templates of the family as token ids (see `jaxphoton.prompt`).

    `templates` keeps the skills and parts that are read, and nothing that is null.
    """

    bos_id: int = whole(0, 0, MAX_VOCABULARY)
    eos_id: int = whole(0, 0, MAX_VOCABULARY)
    answer_id: int = whole(3, 0, MAX_VOCABULARY)
    thinking_id: int = whole(4, 0, MAX_VOCABULARY)
    coord_id: int = whole(5, 0, MAX_VOCABULARY)
    size_id: int = whole(6, 0, MAX_VOCABULARY)
    start_ground_points_id: int = whole(7, 0, MAX_VOCABULARY)
    end_ground_id: int = whole(9, 0, MAX_VOCABULARY)
    templates: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        check_fields(self, "tokenizer")
        object.__setattr__(self, "templates", checked(self.templates))


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """All settings of one model."""

    vision: VisionConfig = field(default_factory=VisionConfig)
    text: TextConfig = field(default_factory=TextConfig)
    region: RegionConfig = field(default_factory=RegionConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)

    def __post_init__(self):
        vision, text, region = self.vision, self.text, self.region
        for name, width in (("vision.proj_out_dim", vision.proj_out_dim), ("region.dim", region.dim)):
            require(width == text.dim, f"{name} ({width}) must equal text.dim ({text.dim})")
        prefix = 1 + vision.image_tokens
        require(text.prefix_attn == prefix, f"text.prefix_attn must be 1 + grid^2 = {prefix}, not {text.prefix_attn}")
        require(
            text.max_context > prefix,
            f"text.max_context ({text.max_context}) must be longer than the image prefix ({prefix})",
        )
        size = _matrices(self)
        require(size <= MAX_PARAMETERS, f"these settings have {size:.3g} parameters: the most is {MAX_PARAMETERS:.3g}")


def _require_multiple(name: str, value: int, divisor_name: str, divisor: int) -> None:
    require(value % divisor == 0, f"{name} ({value}) must be a multiple of {divisor_name} ({divisor})")


def _matrices(config: ModelConfig) -> int:
    """Parameters in the matrices of the layers, the projection and the vocabulary: nearly all there are."""
    vision, text = config.vision, config.text
    encoder = vision.enc_n_layers * vision.enc_dim * (4 * vision.enc_dim + 2 * vision.enc_ff_dim)
    encoder += vision.proj_inner_dim * (2 * vision.enc_dim + vision.proj_out_dim)
    dense = text.n_layers if text.moe is None else text.moe.start_layer
    layers = text.n_layers * text.dim * (text.qkv_dim + text.dim) + dense * 2 * text.dim * text.ff_dim
    if text.moe is not None:
        layers += (text.n_layers - dense) * text.moe.num_experts * 3 * text.dim * text.moe.expert_inner_dim
    return encoder + layers + 2 * text.vocab_size * text.dim
