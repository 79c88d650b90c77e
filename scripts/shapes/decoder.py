"""The text decoder."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import MLP, THETA, Attention, Sizes

Cache = list[tuple[Tensor, Tensor]]


def rotary(x: Tensor, positions: Tensor) -> Tensor:
    """Rotate the first half of each head of x [batch, heads, length, width]."""
    half = x.shape[-1] // 4
    frequency = THETA ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = positions[:, None, :, None].float() * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], -1)


class TextBlock(nn.Module):
    """Attention and MLP in parallel behind one LayerNorm."""

    def __init__(self, dim: int, heads: int, ff: int) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(dim)
        self.attn, self.mlp = Attention(dim, heads), MLP(dim, ff, dim)

    def forward(
        self, x: Tensor, positions: Tensor, mask: Tensor | None, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the output and all keys and values, the past ones first."""
        h = self.ln(x)
        q, k, v = self.attn.split(h)
        q, k = rotary(q, positions), rotary(k, positions)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        mixed = self.attn.merge(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))
        return x + mixed + self.mlp(h), (k, v)


class Text(nn.Module):
    """The decoder."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.wte = nn.Parameter(torch.zeros(sizes.vocab, sizes.dim))
        self.blocks = nn.ModuleList(TextBlock(sizes.dim, sizes.heads, sizes.ff) for _ in range(sizes.layers))
        self.post_ln = nn.LayerNorm(sizes.dim)
        self.lm_head = nn.Linear(sizes.dim, sizes.vocab)

    def forward(
        self, x: Tensor, positions: Tensor, mask: Tensor | None, past: Cache | None = None
    ) -> tuple[Tensor, Cache]:
        """Return the residual stream after the last block, and the keys and values."""
        cache: Cache = []
        for index, block in enumerate(self.blocks):
            x, kept = block(x, positions, mask, past[index] if past else None)
            cache.append(kept)
        return x, cache

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the token logits of hidden states."""
        return self.lm_head(self.post_ln(hidden))
