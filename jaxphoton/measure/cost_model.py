"""What the parts of a request cost at the least: bytes to and from device memory, and floating-point operations.

Pure functions of the settings; no jax. B rows, T new positions, S positions attended to, D model, F inner width,
L layers, V vocabulary, N query heads, K key/value heads, H head dim, E vision width, P patches of a crop.

The bytes are a floor: weights and keys/values move once, activations stay on the chip. A dot of [m, k] and [k, n] is
2 m k n operations; norms, softmax and sampling are left out (a few per cent of a large model). Every image prefix and
prompt position is counted, padding of buckets is not.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxphoton.engine.memory import kv_position_bytes
from jaxphoton.models.moondream.config import ModelConfig, RegionConfig, TextConfig, VisionConfig

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Cost:
    """One run of a program.

    Attributes:
      flops: operations of the matrix products.
      weight_bytes: parameters read.
      kv_bytes: keys and values read and written.
      data_bytes: pixels in and embeddings out.
    """

    flops: int
    weight_bytes: int
    kv_bytes: int = 0
    data_bytes: int = 0

    @property
    def bytes(self) -> int:
        return self.weight_bytes + self.kv_bytes + self.data_bytes

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.bytes


def item_bytes(dtype: str) -> int:
    """Bytes of one number.

    Raises:
      ValueError: a dtype that models are not loaded in.
    """
    if dtype not in ITEM_BYTES:
        raise ValueError(f"dtype must be one of {', '.join(ITEM_BYTES)}, got {dtype!r}")
    return ITEM_BYTES[dtype]


def weight_bytes(config: ModelConfig, dtype: str) -> dict[str, int]:
    """Bytes of the parameters by part (vision, text, region) as they lie on the device.

    The Fourier features of the region part are float32 in every dtype.
    """
    size, region = item_bytes(dtype), config.region
    features = region.coord_feat_dim // 2 + region.size_feat_dim
    return {
        "vision": size * vision_parameters(config.vision),
        "text": size * text_parameters(config.text),
        "region": size * (region_parameters(region) - features) + ITEM_BYTES["float32"] * features,
    }


def parameter_count(config: ModelConfig) -> int:
    return vision_parameters(config.vision) + text_parameters(config.text) + region_parameters(config.region)


def vision_parameters(c: VisionConfig) -> int:
    """Encoder blocks of 4 E^2 + 2 E F and their biases and norms, patch and position embeddings, projection."""
    e, f, inner = c.enc_dim, c.enc_ff_dim, c.proj_inner_dim
    block = 4 * e * e + 2 * e * f + (4 * e + f + e) + 4 * e
    embeddings = (c.patch_dim + 1) * e + c.image_tokens * e
    projection = (2 * e + 1) * inner + (inner + 1) * c.proj_out_dim
    return c.enc_n_layers * block + embeddings + 2 * e + projection


def text_parameters(c: TextConfig) -> int:
    """Blocks, final norm, vocabulary head with bias, and the embedding table."""
    layers = sum(_layer_parameters(c, layer, c.moe.num_experts if c.moe else 0) for layer in range(c.n_layers))
    return int(layers) + 2 * c.dim + (c.dim + 1) * c.vocab_size + c.vocab_size * c.dim


def region_parameters(c: RegionConfig) -> int:
    """Fourier features, both encoders, both heads."""
    features = c.coord_feat_dim // 2 + c.size_feat_dim
    return features + _encoder_parameters(c) + _head_parameters(c)


def encode_cost(config: ModelConfig, dtype: str, crops: int, images: int = 1) -> Cost:
    """Crops of `images` pictures to their embeddings.

    A crop: patches 2 P (3 p^2) E, a layer 2 P (4 E^2 + 2 E F) + 4 P^2 E, pooling 4 g^3 E over a grid of side g; an
    image: projection 2 P (2 E I + I D). Bytes: the vision weights, uint8 pixels in, embeddings out.
    """
    c, patches = config.vision, config.vision.image_tokens
    block = 2 * patches * (4 * c.enc_dim**2 + 2 * c.enc_dim * c.enc_ff_dim) + 4 * patches**2 * c.enc_dim
    crop = 2 * patches * c.patch_dim * c.enc_dim + c.enc_n_layers * block + 4 * c.grid**3 * c.enc_dim
    image = 2 * patches * c.proj_inner_dim * (2 * c.enc_dim + c.proj_out_dim)
    pixels = crops * c.crop_size**2 * c.in_channels
    embeddings = images * patches * c.proj_out_dim * item_bytes(dtype)
    weights = weight_bytes(config, dtype)["vision"]
    return Cost(crops * crop + images * image, weights, data_bytes=pixels + embeddings)


def prefix_cost(config: ModelConfig, dtype: str, images: int = 1) -> Cost:
    """Image prefixes of T = 1 + P positions, bidirectional, into the cache.

    A layer: 2 T weights + 4 T^2 N H. Nothing is read of the last layer but its keys and values, so that it is its
    qkv product alone; there is no vocabulary head.
    """
    c, length = config.text, config.text.prefix_attn
    tokens, width = images * length, c.n_heads * c.head_dim
    whole = range(c.n_layers - 1)
    used = sum(_layer_parameters(c, layer, _experts_used(c)) for layer in whole) + c.qkv_dim * c.dim
    read = sum(_layer_parameters(c, layer, _experts_read(c, tokens)) for layer in whole) + (c.qkv_dim + 2) * c.dim
    flops = 2 * tokens * used + (c.n_layers - 1) * images * 4 * length**2 * width
    size = item_bytes(dtype)
    return Cost(int(flops), int(size * read), tokens * kv_position_bytes(c, size), tokens * c.dim * size)


def prefill_cost(config: ModelConfig, dtype: str, rows: int, length: int, past: int) -> Cost:
    """Prompts of T = `length` positions behind `past` positions that are in the cache, and the first token.

    Every position passes the layers, one of each row the vocabulary head; attention is causal: 4 N H a layer for
    each pair of a position and one that it sees. Region heads are not counted.
    """
    tokens = rows * length
    pairs = rows * (length * past + length * (length + 1) // 2)
    return _text_cost(config, dtype, tokens, rows, pairs, rows * (past + length), region_heads=False)


def step_cost(config: ModelConfig, dtype: str, rows: int, context: int, region_heads: bool = True) -> Cost:
    """One decode step of B rows that attend to S = `context` positions each, their own included.

    FLOPs: 2 B (layers + vocabulary head + region encoders [+ region heads]) + 4 B S N H L.
    Bytes: those weights once, and B S positions of keys and values (S - 1 read, one written). Of the embedding
    table only B lines are read. `region_heads` is what boxes and points read and texts do not. A mixture of experts
    computes k of E experts a row; the experts read are E (1 - (1 - k / E)^B) a layer, if routing is even.
    """
    return _text_cost(config, dtype, rows, rows, rows * context, rows * context, region_heads)


def _text_cost(
    config: ModelConfig, dtype: str, tokens: int, sampled: int, pairs: int, positions: int, region_heads: bool
) -> Cost:
    c, size, region = config.text, item_bytes(dtype), config.region
    layers = range(c.n_layers)
    used = sum(_layer_parameters(c, layer, _experts_used(c)) for layer in layers)
    read = sum(_layer_parameters(c, layer, _experts_read(c, tokens)) for layer in layers)
    head = c.dim * c.vocab_size + (_head_parameters(region) if region_heads else 0)
    flops = 2 * tokens * (used + _encoder_parameters(region)) + 2 * sampled * head
    flops += 4 * pairs * c.n_heads * c.head_dim * c.n_layers
    read += head + c.vocab_size + 2 * c.dim + _encoder_parameters(region)
    return Cost(int(flops), int(size * read), positions * kv_position_bytes(c, size))


def _layer_parameters(c: TextConfig, layer: int, experts: float) -> float:
    """Parameters of one layer with that many of its experts: norm, attention (with tau), MLP or router and experts."""
    attention = (c.dim + 1) * c.qkv_dim + (c.n_heads * c.head_dim + 1) * c.dim
    tau = 2 * c.n_heads * c.qkv_dim + c.n_heads if c.tau_attn else 0
    if c.moe is not None and layer >= c.moe.start_layer:
        mlp = (c.dim + 1) * c.moe.num_experts + experts * 3 * c.dim * c.moe.expert_inner_dim
    else:
        mlp = (c.dim + 1) * c.ff_dim + (c.ff_dim + 1) * c.dim
    return 2 * c.dim + attention + tau + mlp


def _experts_used(c: TextConfig) -> int:
    return c.moe.experts_per_token if c.moe else 0


def _experts_read(c: TextConfig, tokens: int) -> float:
    """Experts of a layer that some of `tokens` tokens uses, if every choice is as likely."""
    if c.moe is None:
        return 0.0
    return c.moe.num_experts * (1 - (1 - c.moe.experts_per_token / c.moe.num_experts) ** tokens)


def _encoder_parameters(c: RegionConfig) -> int:
    return (c.coord_feat_dim + c.size_feat_dim + 2) * c.dim


def _head_parameters(c: RegionConfig) -> int:
    out = c.coord_out_dim + c.size_out_dim
    norm = 2 * c.dim if c.use_ln else 0
    if c.decoder_arch == "linear":
        return (c.dim + 1) * out + norm
    return 2 * (c.dim + 1) * c.inner_dim + (c.inner_dim + 1) * out + norm
