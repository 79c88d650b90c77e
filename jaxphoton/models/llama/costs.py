"""What the text decoder costs: the side of texts of `models.costs.Costs`, for the families that have it. No jax.

B rows, T new positions, S positions attended to, D model, F inner width, L layers, V vocabulary, N query heads, K
key/value heads, H head dim.
"""

from __future__ import annotations

from typing import Any

from jaxphoton.models.costs import Collective, Cost, Matrix, Part, Storage
from jaxphoton.models.llama.config import TextConfig

FLOAT32 = 4


class LlamaCosts:
    """`models.costs.Costs` but for pictures."""

    def __init__(self, config: Any):
        self._config = config
        self._text: TextConfig = config.text

    def vision(self) -> Part:
        """The encoder, and what makes image embeddings of its features."""
        raise NotImplementedError

    def parts(self) -> dict[str, Part]:
        """The parameters, by the first level of their tree."""
        return {"vision": self.vision(), "text": text_part(self._text)}

    def parameters(self) -> dict[str, int]:
        return {name: int(part.size) for name, part in self.parts().items()}

    def weights(self, storage: Storage) -> dict[str, int]:
        return {name: int(part.bytes(storage)) for name, part in self.parts().items()}

    def prefix(self, images: int, length: int, storage: Storage) -> Cost:
        """T positions, each attending to those in front of it and itself.

        A layer: 2 T weights + 2 T (T + 1) N H. Nothing is read of the last layer but its keys and values, so that it is
        its input product alone; there is no vocabulary head.
        """
        c, tokens = self._text, images * length
        whole, last = c.num_hidden_layers - 1, Part([input_matrix(c)], c.hidden_size)
        used = whole * matrix_size(c) + last.matrices[0].size
        pairs = images * length * (length + 1) // 2
        flops = 2 * tokens * used + whole * 4 * pairs * c.num_attention_heads * c.head_dim
        read = whole * layer_part(c).bytes(storage) + last.bytes(storage)
        norms = storage.item * (2 * whole + 1) * c.hidden_size
        data = tokens * c.hidden_size * storage.item
        return Cost(int(flops), int(read), tokens * position_bytes(c, storage.item), data, norms)

    def text(self, tokens: int, sampled: int, pairs: int, positions: int, storage: Storage, readout: bool) -> Cost:
        """FLOPs: 2 tokens layers, 2 sampled V D, 4 pairs N H L. Bytes: those weights once, without the lines of the
        embedding table. No token carries anything besides, so that a readout costs nothing."""
        c, head = self._text, head_part(self._text)
        flops = 2 * tokens * c.num_hidden_layers * matrix_size(c) + 2 * sampled * head.matrices[0].size
        flops += 4 * pairs * c.num_attention_heads * c.head_dim * c.num_hidden_layers
        read = c.num_hidden_layers * layer_part(c).bytes(storage) + head.bytes(storage)
        norms = storage.item * (2 * c.num_hidden_layers + 1) * c.hidden_size
        return Cost(int(flops), int(read), positions * position_bytes(c, storage.item), 0, norms)

    def prefix_collectives(self, images: int, length: int, item: int) -> list[Collective]:
        """The rows of the embedding table, and the layers but for the last, of which nobody asks the output."""
        c, tokens = self._text, images * length
        rows = Collective("sum", 1, item * tokens * c.hidden_size)
        return [rows, _layer_sums(c, tokens, c.num_hidden_layers - 1)]

    def text_collectives(self, tokens: int, sampled: int, item: int) -> list[Collective]:
        """The rows of the embedding table, the layers, and the logits, in float32."""
        c = self._text
        rows = Collective("sum", 1, item * tokens * c.hidden_size)
        logits = Collective("gather", 1, FLOAT32 * sampled * c.vocab_size)
        return [rows, _layer_sums(c, tokens, c.num_hidden_layers), logits]

    def busiest(self, tokens: int, devices: int) -> float:
        """There are no experts."""
        return 1.0


def text_part(c: TextConfig) -> Part:
    """Blocks, final norm, vocabulary head, and the embedding table."""
    layer, head, layers = layer_part(c), head_part(c), c.num_hidden_layers
    matrices = [Matrix(each.use, layers * each.number, each.rows, each.widths) for each in layer.matrices]
    others = layers * layer.others + head.others + c.vocab_size * c.hidden_size
    return Part([*matrices, *head.matrices], others)


def head_part(c: TextConfig) -> Part:
    """The vocabulary and the norm in front of it."""
    return Part([Matrix("head", 1, c.vocab_size, (c.hidden_size,))], c.hidden_size)


def layer_part(c: TextConfig) -> Part:
    """One layer: the input product of attention and its output, gate and values, their output, two norms."""
    dim, ff = c.hidden_size, c.intermediate_size
    shapes = ((dim, c.num_attention_heads * c.head_dim), (2 * ff, dim), (dim, ff))
    matrices = [Matrix("layers", 1, rows, (columns,)) for rows, columns in shapes]
    return Part([input_matrix(c), *matrices], 2 * dim)


def input_matrix(c: TextConfig) -> Matrix:
    """Of queries, keys and values."""
    heads = c.num_attention_heads + 2 * c.num_key_value_heads
    return Matrix("layers", 1, heads * c.head_dim, (c.hidden_size,))


def matrix_size(c: TextConfig) -> float:
    """Numbers in the matrices of a layer."""
    return sum(matrix.size for matrix in layer_part(c).matrices)


def position_bytes(c: TextConfig, item: int) -> int:
    """Keys and values of one position."""
    return 2 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim * item


def _layer_sums(c: TextConfig, tokens: int, layers: int) -> Collective:
    """Of attention, and of the MLP behind it."""
    return Collective("sum", 2 * layers, FLOAT32 * tokens * c.hidden_size)
