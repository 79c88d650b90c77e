"""What the parts of a Moondream cost: `models.costs.Costs`. No jax.

B rows, T new positions, S positions attended to, D model, F inner width, L layers, V vocabulary, N query heads, K
key/value heads, H head dim, E vision width, P patches of a crop.
"""

from __future__ import annotations

from jaxphoton.models.costs import Cost, Matrix, Part, Storage
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
        return {name: int(part.size) for name, part in self._parts().items()}

    def weights(self, storage: Storage) -> dict[str, int]:
        """The Fourier features of the region part and the slopes of tau are float32 in every dtype."""
        region, text = self._config.region, self._config.text
        size = {name: int(part.bytes(storage)) for name, part in self._parts().items()}
        size["region"] += (FLOAT32 - storage.item) * (region.coord_feat_dim // 2 + region.size_feat_dim)
        size["text"] += (FLOAT32 - storage.item) * (text.n_layers * text.n_heads if text.tau_attn else 0)
        return size

    def _parts(self) -> dict[str, Part]:
        config = self._config
        region = Part((), region_parameters(config.region))
        return {"vision": vision_part(config.vision), "text": text_part(config.text), "region": region}

    def encode(self, images: int, crops: int, storage: Storage) -> Cost:
        """A crop: patches 2 P (3 p^2) E, a layer 2 P (4 E^2 + 2 E F) + 4 P^2 E, pooling 4 g^3 E over a grid of side g;
        an image: projection 2 P (2 E I + I D). Bytes: the vision weights, uint8 pixels in, embeddings out."""
        c, patches = self._config.vision, self._config.vision.image_tokens
        block = 2 * patches * (4 * c.enc_dim**2 + 2 * c.enc_dim * c.enc_ff_dim) + 4 * patches**2 * c.enc_dim
        crop = 2 * patches * c.patch_dim * c.enc_dim + c.enc_n_layers * block + 4 * c.grid**3 * c.enc_dim
        image = 2 * patches * c.proj_inner_dim * (2 * c.enc_dim + c.proj_out_dim)
        pixels = crops * c.crop_size**2 * c.in_channels
        embeddings = images * patches * c.proj_out_dim * storage.item
        weights = int(vision_part(c).bytes(storage))
        return Cost(crops * crop + images * image, weights, data_bytes=pixels + embeddings)

    def prefix(self, images: int, storage: Storage) -> Cost:
        """T = 1 + P positions, bidirectional.

        A layer: 2 T weights + 4 T^2 N H. Nothing is read of the last layer but its keys and values, so that it is its
        input product alone, which in a dense layer is that of the MLP too; there is no vocabulary head.
        """
        c, length = self._config.text, self._config.text.prefix_attn
        tokens, width = images * length, c.n_heads * c.head_dim
        whole = range(c.n_layers - 1)
        last = _input_matrix(c, c.n_layers - 1)
        used = sum(_layer_part(c, layer, _experts_used(c)).size for layer in whole) + last.size
        read = sum(_layer_part(c, layer, _experts_read(c, tokens)).bytes(storage) for layer in whole)
        read += Part([last], last.rows + 2 * c.dim).bytes(storage)
        flops = 2 * tokens * used + (c.n_layers - 1) * images * 4 * length**2 * width
        kv = tokens * _position_bytes(c, storage.item)
        return Cost(int(flops), int(read), kv, tokens * c.dim * storage.item)

    def text(self, tokens: int, sampled: int, pairs: int, positions: int, storage: Storage, readout: bool) -> Cost:
        """FLOPs: 2 tokens (layers + region encoders), 2 sampled (vocabulary head [+ region heads]), 4 pairs N H L.

        Bytes: those weights once; of the embedding table only the tokens' lines. A mixture of experts computes k of E
        experts a token; the experts read are E (1 - (1 - k / E)^tokens) a layer, if routing is even.
        """
        c, region = self._config.text, self._config.region
        layers = range(c.n_layers)
        used = sum(_layer_part(c, layer, _experts_used(c)).size for layer in layers)
        read = sum(_layer_part(c, layer, _experts_read(c, tokens)).bytes(storage) for layer in layers)
        head, heads = _vocabulary_matrix(c), _head_parameters(region) if readout else 0
        flops = 2 * tokens * (used + _encoder_parameters(region)) + 2 * sampled * (head.size + heads)
        flops += 4 * pairs * c.n_heads * c.head_dim * c.n_layers
        read += Part([head], heads + c.vocab_size + 2 * c.dim + _encoder_parameters(region)).bytes(storage)
        return Cost(int(flops), int(read), positions * _position_bytes(c, storage.item))


def _position_bytes(c: TextConfig, item: int) -> int:
    """Keys and values of one position."""
    return 2 * c.n_layers * c.n_kv_heads * c.head_dim * item


def vision_part(c: VisionConfig) -> Part:
    """Encoder blocks of 4 E^2 + 2 E F and their biases and norms, patch and position embeddings, projection."""
    e, f, inner = c.enc_dim, c.enc_ff_dim, c.proj_inner_dim
    shapes = [(c.enc_n_layers, rows, columns) for rows, columns in ((3 * e, e), (e, e), (f, e), (e, f))]
    shapes += [(1, inner, 2 * e), (1, c.proj_out_dim, inner)]
    block = (4 * e + f + e) + 4 * e
    embeddings = (c.patch_dim + 1) * e + c.image_tokens * e
    others = c.enc_n_layers * block + embeddings + 2 * e + inner + c.proj_out_dim
    return Part([Matrix("vision", number, rows, (columns,)) for number, rows, columns in shapes], others)


def text_part(c: TextConfig) -> Part:
    """Blocks, final norm, vocabulary head with bias, and the embedding table."""
    layers = [_layer_part(c, layer, c.moe.num_experts if c.moe else 0) for layer in range(c.n_layers)]
    matrices = [matrix for layer in layers for matrix in layer.matrices]
    others = sum(layer.others for layer in layers) + 2 * c.dim + c.vocab_size + c.vocab_size * c.dim
    return Part([*matrices, _vocabulary_matrix(c)], others)


def region_parameters(c: RegionConfig) -> int:
    """Fourier features, both encoders, both heads."""
    features = c.coord_feat_dim // 2 + c.size_feat_dim
    return features + _encoder_parameters(c) + _head_parameters(c)


def _vocabulary_matrix(c: TextConfig) -> Matrix:
    return Matrix("head", 1, c.vocab_size, (c.dim,))


def _has_experts(c: TextConfig, layer: int) -> bool:
    return c.moe is not None and layer >= c.moe.start_layer


def _input_matrix(c: TextConfig, layer: int) -> Matrix:
    """Of queries, keys and values, and in a dense layer of the MLP too."""
    return Matrix("layers", 1, c.qkv_dim + (0 if _has_experts(c, layer) else c.ff_dim), (c.dim,))


def _layer_part(c: TextConfig, layer: int, experts: float) -> Part:
    """One layer with that many of its experts: norm, attention (with tau), MLP or router and experts."""
    tau = 2 * c.n_heads * c.qkv_dim + c.n_heads if c.tau_attn else 0
    others, attended = c.qkv_dim + 3 * c.dim + tau, c.n_heads * c.head_dim
    if c.moe is None or not _has_experts(c, layer):
        out = Matrix("layers", 1, c.dim, (attended, c.ff_dim))
        return Part([_input_matrix(c, layer), out], others + c.ff_dim + c.dim)
    inner = c.moe.expert_inner_dim
    matrices = [
        _input_matrix(c, layer),
        Matrix("layers", 1, c.dim, (attended,)),
        Matrix("experts", experts, 2 * inner, (c.dim,)),
        Matrix("experts", experts, c.dim, (inner,)),
    ]
    return Part(matrices, others + (c.dim + 1) * c.moe.num_experts)


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
