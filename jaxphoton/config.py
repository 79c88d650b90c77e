"""Model settings: frozen data, read from the upstream `config.json` form.

No jax here: the image, prompt and skill packages read these settings too.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

T = TypeVar("T")

# The wrapper's `model_type` names the defaults of an empty inner object (published Moondream 2 files have one).
MODEL_TYPES = {"moondream1": "moondream2", "moondream2": "moondream2", "moondream3": "moondream3"}

KV_DTYPES = ("model", "float8")
KERNELS = ("auto", "reference", "triton", "interpret")


class ConfigError(ValueError):
    """Model settings that cannot be read or do not fit together."""


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """Vision encoder and projection. Lengths in pixels unless said; `overlap_margin` in patches."""

    enc_dim: int = 1152
    enc_patch_size: int = 14
    enc_n_layers: int = 27
    enc_ff_dim: int = 4304
    enc_n_heads: int = 16
    proj_out_dim: int = 2048
    proj_inner_dim: int = 8192
    crop_size: int = 378
    in_channels: int = 3
    max_crops: int = 12
    overlap_margin: int = 4

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
        _require(self.crop_size % self.enc_patch_size == 0, "vision.crop_size must be a multiple of enc_patch_size")
        _require(self.enc_dim % self.enc_n_heads == 0, "vision.enc_dim must be a multiple of enc_n_heads")
        _require(0 <= 2 * self.overlap_margin < self.grid, "vision.overlap_margin leaves no room for a tile")
        _require(self.in_channels == 3, "vision.in_channels must be 3")
        _require(self.max_crops >= 1, "vision.max_crops must be at least 1")


@dataclass(frozen=True, slots=True)
class MoeConfig:
    """Mixture of experts in the text layers from `start_layer` on."""

    num_experts: int = 64
    start_layer: int = 4
    experts_per_token: int = 8
    expert_inner_dim: int = 1024


@dataclass(frozen=True, slots=True)
class TextConfig:
    """Text decoder. `prefix_attn` is the length of the bidirectional prefix (BOS and the image)."""

    dim: int = 2048
    ff_dim: int = 8192
    n_layers: int = 24
    vocab_size: int = 51200
    max_context: int = 2048
    n_heads: int = 32
    n_kv_heads: int = 32
    prefix_attn: int = 730
    rope_theta: float = 10_000.0
    tau_attn: bool = False
    moe: MoeConfig | None = None

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
        _require(self.dim % self.n_heads == 0, "text.dim must be a multiple of n_heads")
        _require(self.head_dim % 4 == 0, "text head dim must be a multiple of 4 (half of it rotates in pairs)")
        _require(self.n_heads % self.n_kv_heads == 0, "text.n_heads must be a multiple of n_kv_heads")


@dataclass(frozen=True, slots=True)
class RegionConfig:
    """Coordinate and size heads. `size_bins` is the scale of the size bins (models before March 2025: linear)."""

    dim: int = 2048
    coord_feat_dim: int = 256
    coord_out_dim: int = 1024
    size_feat_dim: int = 512
    size_out_dim: int = 2048
    inner_dim: int = 8192
    decoder_arch: Literal["mlp", "linear"] = "mlp"
    use_ln: bool = False
    size_bins: Literal["log", "linear"] = "log"
    coord_divisor: Literal["bins", "bins-1"] = "bins"

    def __post_init__(self):
        _require(self.decoder_arch in ("mlp", "linear"), "region.decoder_arch must be 'mlp' or 'linear'")
        _require(self.size_bins in ("log", "linear"), "region.size_bins must be 'log' or 'linear'")
        _require(self.coord_divisor in ("bins", "bins-1"), "region.coord_divisor must be 'bins' or 'bins-1'")


@dataclass(frozen=True, slots=True)
class TokenizerConfig:
    """Special ids, and the prompt templates of the family as token ids (see `jaxphoton.prompt`)."""

    bos_id: int = 0
    eos_id: int = 0
    answer_id: int = 3
    thinking_id: int = 4
    coord_id: int = 5
    size_id: int = 6
    start_ground_points_id: int = 7
    end_ground_id: int = 9
    templates: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """All settings of one model."""

    vision: VisionConfig = field(default_factory=VisionConfig)
    text: TextConfig = field(default_factory=TextConfig)
    region: RegionConfig = field(default_factory=RegionConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)

    def __post_init__(self):
        vision, text, region = self.vision, self.text, self.region
        _require(vision.proj_out_dim == text.dim, "vision.proj_out_dim must equal text.dim")
        _require(region.dim == text.dim, "region.dim must equal text.dim")
        prefix = 1 + vision.image_tokens
        _require(text.prefix_attn == prefix, f"text.prefix_attn must be 1 + grid^2 = {prefix}")
        _require(text.max_context > prefix, "text.max_context must be longer than the image prefix")


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How the engine runs. Every combination of buckets is one compiled program.

    Attributes:
      max_rows: sequences decoded at once.
      depth: launches under way at once; 1 blocks on every step, 2 pipelines.
      page_size: positions a key/value page holds.
      kv_pages: pages of the pool; None sizes it for `max_rows` sequences of a whole context, or as many pages as fit.
      memory_fraction: share of the device's memory (of what its allocator can hand out) that the engine may fill.
      step_rows: batch sizes of the decode step.
      prefill_rows: batch sizes of a prefill.
      prefill_lengths: chunk lengths of a prefill.
      vision: (images, crops) that one vision launch takes; None for buckets fit for the model.
      max_waiting: requests that may wait; more are refused.
      image_workers: processes that decode and crop the images of a batch; None for half the cores (at most 8), 0 for
        the calling thread.
      image_timeout: seconds that such a process may be at one image; then another tries, once.
      host_masks: compile what requests need whose answers the host restricts (a JSON schema, choices).
      share_prefixes: let questions about one image share its pages.
      fixed_shapes: one bucket of each kind, one request a prefill, nothing shared: a request's result is then the
        same to the last bit whatever else runs (`kv_pages` must be enough that none is set back).
      kernels: what computes attention and sampling: "reference" (plain XLA), "triton", "interpret" (Triton kernels
        interpreted, for tests) or "auto", the kernels wherever they run.
      kv_dtype: of stored keys and values: "model" (that of the weights), or "float8" (e4m3: half the bytes of bfloat16,
        scaled by the checkpoint's factors where it has them).
    """

    max_rows: int = 32
    depth: int = 2
    page_size: int = 16
    kv_pages: int | None = None
    memory_fraction: float = 0.9
    step_rows: tuple[int, ...] = (2, 8, 32)
    prefill_rows: tuple[int, ...] = (1, 4)
    prefill_lengths: tuple[int, ...] = (32, 128)
    vision: tuple[tuple[int, int], ...] | None = None
    max_waiting: int = 1024
    image_workers: int | None = None
    image_timeout: float = 60.0
    host_masks: bool = True
    share_prefixes: bool = True
    fixed_shapes: bool = False
    kernels: str = "auto"
    kv_dtype: str = "model"

    def __post_init__(self):
        _require(self.depth in (1, 2), "depth must be 1 (blocking) or 2 (pipelined)")
        _require(self.max_rows >= 1, "max_rows must be at least 1")
        _require(max(self.step_rows) >= self.max_rows, "the largest of step_rows must hold max_rows")
        _require(min(self.step_rows) >= 2, "step_rows must be at least 2: a single row rounds differently")
        _require(self.page_size >= 1, "page_size must be at least 1")
        _require(self.kv_pages is None or self.kv_pages >= 2, "kv_pages must be at least 2: page 0 is nobody's")
        _require(self.image_timeout > 0, "image_timeout must be above 0")
        _require(0 < self.memory_fraction <= 1, "memory_fraction must be above 0 and at most 1")
        _require(self.kernels in KERNELS, f"kernels must be one of {', '.join(KERNELS)}")
        _require(self.kv_dtype in KV_DTYPES, f"kv_dtype must be one of {', '.join(KV_DTYPES)}")
        for name in ("step_rows", "prefill_rows", "prefill_lengths"):
            buckets = getattr(self, name)
            _require(min(buckets) >= 1 and list(buckets) == sorted(set(buckets)), f"{name} must be ascending")


def load_config(path: str | Path) -> ModelConfig:
    """Reads a `config.json` in the upstream form (or one of the bare files in `configs/`).

    Raises:
      ConfigError: the file is not JSON, names an unknown setting, or its settings do not fit together.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON: {error}") from error
    try:
        return config_from_dict(data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def named_config(name: str) -> ModelConfig:
    """The settings of a released family: `moondream2`, `moondream-0.5b`, `moondream3`."""
    return config_from_dict(_packaged(name))


def config_from_dict(data: dict[str, Any]) -> ModelConfig:
    """Settings from the upstream dictionary: a wrapper with an inner `config`, or the inner object alone.

    What the inner object leaves out comes from the family that `model_type` names (Moondream 2 by default).
    """
    if not isinstance(data, dict):
        raise ConfigError("settings must be a JSON object")
    inner = data.get("config", data) or {}
    base = _packaged(MODEL_TYPES.get(data.get("model_type", "moondream2"), "moondream2"))["config"]
    merged = {
        part: {**base.get(part, {}), **(inner.get(part) or {})} for part in ("vision", "text", "region", "tokenizer")
    }
    if (merged["text"].get("group_size") or merged["region"].get("group_size")) is not None:
        raise ConfigError("int4 checkpoints (group_size set) are not supported")
    if isinstance(merged["text"].get("moe"), dict):
        merged["text"]["moe"] = _build(MoeConfig, merged["text"]["moe"], "text.moe")
    return ModelConfig(
        vision=_build(VisionConfig, merged["vision"], "vision"),
        text=_build(TextConfig, merged["text"], "text"),
        region=_build(RegionConfig, merged["region"], "region"),
        tokenizer=_build(TokenizerConfig, merged["tokenizer"], "tokenizer"),
    )


def config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """The inverse of `config_from_dict`, in the upstream form."""
    return {"model_type": "moondream3" if config.text.moe else "moondream1", "config": dataclasses.asdict(config)}


def _packaged(name: str) -> dict[str, Any]:
    file = resources.files("jaxphoton").joinpath("configs", f"{name}.json")
    if not file.is_file():
        raise ConfigError(f"unknown model family {name!r}")
    return json.loads(file.read_text(encoding="utf-8"))


def _build(cls: type[T], values: dict[str, Any], where: str) -> T:
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known - {"group_size"})
    if unknown:
        raise ConfigError(f"unknown settings in {where}: {', '.join(unknown)}")
    return cls(**{name: value for name, value in values.items() if name in known})


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)
