"""Sizes of the network, and the layers its parts share."""

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from jaxphoton.measure.shapes.tiling import CROP, GRID, MARGIN, MAX_CROPS, PATCH

THETA = 10000.0
CELLS = GRID * GRID
PREFIX = 1 + CELLS
MAX_CONTEXT = 512


@dataclass(frozen=True)
class Sizes:
    """Widths and depths."""

    vocab: int
    dim: int = 128
    layers: int = 4
    heads: int = 4
    ff: int = 512
    enc_dim: int = 128
    enc_layers: int = 4
    enc_heads: int = 4
    enc_ff: int = 512
    proj_inner: int = 384
    bins: int = 256
    coord_features: int = 64
    size_features: int = 128
    region_inner: int = 256

    def config(self) -> dict[str, dict[str, Any]]:
        """Return the text, vision and region parts of config.json."""
        text = {
            "dim": self.dim,
            "ff_dim": self.ff,
            "n_layers": self.layers,
            "vocab_size": self.vocab,
            "max_context": MAX_CONTEXT,
            "n_heads": self.heads,
            "n_kv_heads": self.heads,
            "prefix_attn": PREFIX,
            "group_size": None,
            "tau_attn": False,
            "rope_theta": THETA,
            "moe": None,
        }
        vision = {
            "enc_dim": self.enc_dim,
            "enc_patch_size": PATCH,
            "enc_n_layers": self.enc_layers,
            "enc_ff_dim": self.enc_ff,
            "enc_n_heads": self.enc_heads,
            "proj_out_dim": self.dim,
            "crop_size": CROP,
            "in_channels": 3,
            "max_crops": MAX_CROPS,
            "overlap_margin": MARGIN,
            "proj_inner_dim": self.proj_inner,
        }
        region = {
            "dim": self.dim,
            "coord_feat_dim": self.coord_features,
            "coord_out_dim": self.bins,
            "size_feat_dim": self.size_features,
            "size_out_dim": 2 * self.bins,
            "inner_dim": self.region_inner,
            "decoder_arch": "mlp",
            "use_ln": False,
        }
        return {"text": text, "vision": vision, "region": region}


class MLP(nn.Module):
    """Two linear layers around a tanh-GELU."""

    def __init__(self, width: int, inner: int, out: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, out)

    def forward(self, x: Tensor) -> Tensor:
        """Apply both layers."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Attention(nn.Module):
    """Fused projection to q, k, v in heads, and the output projection."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k, v as [batch, heads, length, head width]."""
        batch, length, dim = x.shape
        shaped = self.qkv(x).view(batch, length, 3, self.heads, dim // self.heads)
        q, k, v = shaped.permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def merge(self, x: Tensor) -> Tensor:
        """Join the heads and project."""
        return self.proj(x.transpose(1, 2).flatten(2))
