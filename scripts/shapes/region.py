"""Coordinates and sizes: encoders, decoders, bins."""

import math

import torch
from torch import Tensor, nn

from .layers import MLP, Sizes

SIZE_OCTAVES = 10.0


class Region(nn.Module):
    """Encoders and decoders of coordinates and sizes."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.bins = sizes.bins
        self.coord_features = nn.Parameter(torch.zeros(1, sizes.coord_features // 2))
        self.size_features = nn.Parameter(torch.zeros(2, sizes.size_features // 2))
        self.coord_encoder = nn.Linear(sizes.coord_features, sizes.dim)
        self.size_encoder = nn.Linear(sizes.size_features, sizes.dim)
        self.coord_decoder = MLP(sizes.dim, sizes.region_inner, sizes.bins)
        self.size_decoder = MLP(sizes.dim, sizes.region_inner, 2 * sizes.bins)

    @staticmethod
    def fourier(values: Tensor, features: Tensor) -> Tensor:
        """Return cosines, then sines."""
        # autocast would round the angles to bfloat16
        with torch.autocast(values.device.type, enabled=False):
            angle = 2.0 * math.pi * (values.float() @ features.float())
        return torch.cat([angle.cos(), angle.sin()], -1)

    def encode_coord(self, values: Tensor) -> Tensor:
        """Embed coordinates [..., 1]."""
        return self.coord_encoder(self.fourier(values, self.coord_features))

    def encode_size(self, values: Tensor) -> Tensor:
        """Embed widths and heights [..., 2]."""
        return self.size_encoder(self.fourier(values, self.size_features))

    def sizes(self, hidden: Tensor) -> Tensor:
        """Return the logits of width and height [..., 2, bins]."""
        return self.size_decoder(hidden).unflatten(-1, (2, self.bins))

    def bin_to_size(self, bins: Tensor) -> Tensor:
        """Return the sizes of bins."""
        return 2.0 ** (SIZE_OCTAVES * bins.float() / (self.bins - 1) - SIZE_OCTAVES)
