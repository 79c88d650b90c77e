"""What the parts of a Moondream cost: `models.costs.Costs`. No jax.

B rows, T new positions, S positions attended to, D model, F inner width, L layers, V vocabulary, N query heads, K
key/value heads, H head dim, E vision width, P patches of a crop.
"""

from __future__ import annotations

from jaxphoton.models.costs import Cost
from jaxphoton.models.moondream.config import ModelConfig, RegionConfig, TextConfig, VisionConfig
from jaxphoton.models.protocol import Family

FLOAT32 = 4


def costs(family: Family) -> MoondreamCosts:
    return MoondreamCosts(family.config)


class MoondreamCosts:
    """Of one model."""

    def __init__(self, config: ModelConfig):
        self._config = config

    def parameters(self) -> dict[str, int]:
        config = self._config
        return {
            "vision": vision_parameters(config.vision),
            "text": text_parameters(config.text),
            "region": region_parameters(config.region),
        }

    def weights(self, item: int) -> dict[str, int]:
        """The Fourier features of the region part are float32 in every dtype."""
        region = self._config.region
        features = region.coord_feat_dim // 2 + region.size_feat_dim
        size = {name: item * count for name, count in self.parameters().items()}
        return {**size, "region": size["region"] + (FLOAT32 - item) * features}

    def encode(self, images: int, crops: int, item: int) -> Cost:
        """A crop: patches 2 P (3 p^2) E, a layer 2 P (4 E^2 + 2 E F) + 4 P^2 E, pooling 4 g^3 E over a grid of side g;
        an image: projection 2 P (2 E I + I D). Bytes: the vision weights, uint8 pixels in, embeddings out."""
        c, patches = self._config.vision, self._config.vision.image_tokens
        block = 2 * patches * (4 * c.enc_dim**2 + 2 * c.enc_dim * c.enc_ff_dim) + 4 * patches**2 * c.enc_dim
        crop = 2 * patches * c.patch_dim * c.enc_dim + c.enc_n_layers * block + 4 * c.grid**3 * c.enc_dim
        image = 2 * patches * c.proj_inner_dim * (2 * c.enc_dim + c.proj_out_dim)
        pixels = crops * c.crop_size**2 * c.in_channels
        embeddings = images * patches * c.proj_out_dim * item
        weights = item * vision_parameters(c)
        return Cost(crops * crop + images * image, weights, data_bytes=pixels + embeddings)

    def prefix(self, images: int, item: int) -> Cost:
        """T = 1 + P positions, bidirectional.

        A layer: 2 T weights + 4 T^2 N H. Nothing is read of the last layer but its keys and values, so that it is its
        input product alone, which in a dense layer is that of the MLP too; there is no vocabulary head.
        """
        c, length = self._config.text, self._config.text.prefix_attn
        tokens, width = images * length, c.n_heads * c.head_dim
        whole = range(c.n_layers - 1)
        last = c.qkv_dim + (c.ff_dim if c.moe is None or c.moe.start_layer >= c.n_layers else 0)
        used = sum(_layer_parameters(c, layer, _experts_used(c)) for layer in whole) + last * c.dim
        read = sum(_layer_parameters(c, layer, _experts_read(c, tokens)) for layer in whole) + (last + 2) * c.dim
        flops = 2 * tokens * used + (c.n_layers - 1) * images * 4 * length**2 * width
        return Cost(int(flops), int(item * read), tokens * _position_bytes(c, item), tokens * c.dim * item)

    def text(self, tokens: int, sampled: int, pairs: int, positions: int, item: int, readout: bool) -> Cost:
        """FLOPs: 2 tokens (layers + region encoders), 2 sampled (vocabulary head [+ region heads]), 4 pairs N H L.

        Bytes: those weights once; of the embedding table only the tokens' lines. A mixture of experts computes k of E
        experts a token; the experts read are E (1 - (1 - k / E)^tokens) a layer, if routing is even.
        """
        c, region = self._config.text, self._config.region
        layers = range(c.n_layers)
        used = sum(_layer_parameters(c, layer, _experts_used(c)) for layer in layers)
        read = sum(_layer_parameters(c, layer, _experts_read(c, tokens)) for layer in layers)
        head = c.dim * c.vocab_size + (_head_parameters(region) if readout else 0)
        flops = 2 * tokens * (used + _encoder_parameters(region)) + 2 * sampled * head
        flops += 4 * pairs * c.n_heads * c.head_dim * c.n_layers
        read += head + c.vocab_size + 2 * c.dim + _encoder_parameters(region)
        return Cost(int(flops), int(item * read), positions * _position_bytes(c, item))


def _position_bytes(c: TextConfig, item: int) -> int:
    """Keys and values of one position."""
    return 2 * c.n_layers * c.n_kv_heads * c.head_dim * item


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
