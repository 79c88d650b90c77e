"""What the parts of a Moondream cost: `models.costs.Costs`. No jax.

B rows, T new positions, S positions attended to, D model, F inner width, L layers, V vocabulary, N query heads, K
key/value heads, H head dim, E vision width, P patches of a crop.
"""

from __future__ import annotations

import numpy as np

from jaxphoton.models.costs import Collective, Cost, Matrix, Part, Storage
from jaxphoton.models.moondream.config import ModelConfig, RegionConfig, TextConfig, VisionConfig
from jaxphoton.models.protocol import Family

FLOAT32 = 4
DRAWS, MANY = 200, 128  # so many tokens choose every expert


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
        return Cost(crops * crop + images * image, weights, data_bytes=pixels + embeddings, whole_bytes=weights)

    def encode_collectives(self, crops: int, item: int) -> list[Collective]:
        c = self._config.vision
        return [Collective("gather", 1, item * crops * c.image_tokens * c.enc_dim)]

    def prefix(self, images: int, length: int, storage: Storage) -> Cost:
        """T = 1 + P positions, the only length, bidirectional.

        A layer: 2 T weights + 4 T^2 N H. Nothing is read of the last layer but its keys and values, so that it is its
        input product alone, which in a dense layer is that of the MLP too; there is no vocabulary head.
        """
        c = self._config.text
        tokens, width = images * length, c.n_heads * c.head_dim
        whole = range(c.n_layers - 1)
        last = _input_matrix(c, c.n_layers - 1)
        used = sum(_layer_part(c, layer, _experts_used(c)).size for layer in whole) + last.size
        read = sum(_layer_part(c, layer, _experts_read(c, tokens)).bytes(storage) for layer in whole)
        read += Part([last], last.rows + 2 * c.dim).bytes(storage)
        flops = 2 * tokens * used + (c.n_layers - 1) * images * 4 * length**2 * width
        kv, shared = tokens * _position_bytes(c, storage.item), storage.item * _layers_whole(c)
        experts = _expert_bytes(c, tokens, whole, storage)
        return Cost(int(flops), int(read), kv, tokens * c.dim * storage.item, shared, experts)

    def prefix_collectives(self, images: int, length: int, item: int) -> list[Collective]:
        """The row of BOS, and the layers but for the output of the last."""
        c = self._config.text
        sums = _layer_sums(c, images * length, c.n_layers - 1)
        return [Collective("sum", 1, item * c.dim), *sums]

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
        others = heads + c.vocab_size + 2 * c.dim + _encoder_parameters(region)
        read += Part([head], others).bytes(storage)
        whole, kv = storage.item * (_layers_whole(c) + others), positions * _position_bytes(c, storage.item)
        return Cost(int(flops), int(read), kv, 0, whole, _expert_bytes(c, tokens, layers, storage))

    def text_collectives(self, tokens: int, sampled: int, item: int) -> list[Collective]:
        """The rows of the embedding table, the layers, and the logits, in float32."""
        c = self._config.text
        rows = Collective("sum", 1, item * tokens * c.dim)
        return [rows, *_layer_sums(c, tokens, c.n_layers), Collective("gather", 1, FLOAT32 * sampled * c.vocab_size)]

    def busiest(self, tokens: int, devices: int) -> float:
        """By drawing choices, the same ones every time."""
        moe = self._config.text.moe
        if moe is None or devices == 1:
            return 1.0
        random, found = np.random.default_rng(0), []
        for _ in range(DRAWS):
            order = np.argsort(random.random((min(tokens, MANY), moe.num_experts)), axis=1)
            read = np.zeros(moe.num_experts, bool)
            read[order[:, : moe.experts_per_token]] = True
            each = read.reshape(devices, -1).sum(axis=1)
            found.append(each.max() / each.mean())
        return float(np.mean(found))


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


def _expert_bytes(c: TextConfig, tokens: int, layers: range, storage: Storage) -> int:
    """Of the experts that these layers read."""
    parts = (_layer_part(c, layer, _experts_read(c, tokens)) for layer in layers)
    matrices = [matrix for part in parts for matrix in part.matrices if matrix.use == "experts"]
    return int(Part(matrices, 0).bytes(storage))


def _layer_sums(c: TextConfig, tokens: int, outputs: int) -> list[Collective]:
    """Attention and MLP of a layer are one sum, of so many layers; the tau factors, which read all heads, another of
    every layer."""
    sums = [Collective("sum", outputs, FLOAT32 * tokens * c.dim)]
    return [*sums, Collective("sum", c.n_layers, FLOAT32 * tokens * 2 * c.n_heads)] if c.tau_attn else sums


def _layers_whole(c: TextConfig) -> int:
    """Numbers that all devices of a mesh have: norms, biases, routers."""
    routers = (c.dim + 1) * c.moe.num_experts * (c.n_layers - c.moe.start_layer) if c.moe else 0
    dense = c.moe.start_layer if c.moe else c.n_layers
    return c.n_layers * 3 * c.dim + dense * c.dim + routers


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
