"""The vision part: crops to image embeddings."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jaxphoton.measure.shapes.scenes import TILINGS
from jaxphoton.measure.shapes.tiling import GRID, MARGIN, PATCH

from .layers import CELLS, MLP, Attention, Sizes


class VisionBlock(nn.Module):
    """Pre-norm block with full attention."""

    def __init__(self, dim: int, heads: int, ff: int) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn, self.mlp = Attention(dim, heads), MLP(dim, ff, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Apply attention, then the MLP."""
        q, k, v = self.attn.split(self.ln1(x))
        x = x + self.attn.merge(F.scaled_dot_product_attention(q, k, v))
        return x + self.mlp(self.ln2(x))


def stitch(local: Tensor, tiling: tuple[int, int]) -> Tensor:
    """Join tile features [batch, tiles, cells, dim] to one map without the overlapping margins."""
    rows, columns = tiling
    grid = local.unflatten(2, (GRID, GRID)).unflatten(1, tiling)
    lines = []
    for i in range(rows):
        top, bottom = (0 if i == 0 else MARGIN), (GRID if i == rows - 1 else GRID - MARGIN)
        line = []
        for j in range(columns):
            left, right = (0 if j == 0 else MARGIN), (GRID if j == columns - 1 else GRID - MARGIN)
            line.append(grid[:, i, j, top:bottom, left:right])
        lines.append(torch.cat(line, 2))
    return torch.cat(lines, 1)


def pool(stitched: Tensor) -> Tensor:
    """Average a map [batch, rows, columns, dim] down to the grid: [batch, cells, dim]."""
    return F.adaptive_avg_pool2d(stitched.permute(0, 3, 1, 2), GRID).flatten(2).transpose(1, 2)


def pooling_matrix(tiling: tuple[int, int]) -> Tensor:
    """Return stitching and pooling as one matrix [cells, tiles * cells], for speed in training."""
    sources = tiling[0] * tiling[1] * CELLS
    return pool(stitch(torch.eye(sources).view(1, -1, CELLS, sources), tiling))[0]


class Vision(nn.Module):
    """The crop encoder and the projection to image embeddings."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.patch_emb = nn.Linear(3 * PATCH * PATCH, sizes.enc_dim)
        self.pos_emb = nn.Parameter(torch.zeros(1, CELLS, sizes.enc_dim))
        self.blocks = nn.ModuleList(
            VisionBlock(sizes.enc_dim, sizes.enc_heads, sizes.enc_ff) for _ in range(sizes.enc_layers)
        )
        self.post_ln = nn.LayerNorm(sizes.enc_dim)
        self.proj_mlp = MLP(2 * sizes.enc_dim, sizes.proj_inner, sizes.dim)
        for tiling in TILINGS:
            name = f"pool_{tiling[0]}x{tiling[1]}"
            self.register_buffer(name, pooling_matrix(tiling), persistent=False)

    def encode(self, crops: Tensor) -> Tensor:
        """Encode uint8 crops [crops, height, width, 3] to [crops, cells, dim]."""
        x = crops.float() / 127.5 - 1.0
        x = x.view(-1, GRID, PATCH, GRID, PATCH, 3).permute(0, 1, 3, 5, 2, 4)
        x = self.patch_emb(x.reshape(-1, CELLS, 3 * PATCH * PATCH)) + self.pos_emb
        for block in self.blocks:
            x = block(x)
        return self.post_ln(x)

    def pooled(self, local: Tensor, tiling: tuple[int, int]) -> Tensor:
        """Stitch and pool tile features [batch, tiles, cells, dim]."""
        matrix = self.get_buffer(f"pool_{tiling[0]}x{tiling[1]}")
        return matrix.to(local.dtype) @ local.flatten(1, 2)

    def project(self, whole: Tensor, pooled: Tensor) -> Tensor:
        """Return the image embeddings [batch, cells, text dim]."""
        return self.proj_mlp(torch.cat([whole, pooled], -1))
