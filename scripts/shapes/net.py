"""The network in PyTorch; parameter names are those of the published checkpoints."""

import math

import torch
from torch import Tensor, nn

from .decoder import Cache, Text
from .layers import PREFIX, Sizes
from .region import Region
from .vision import Vision


class Shapes(nn.Module):
    """The whole model."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.vision, self.text, self.region = Vision(sizes), Text(sizes), Region(sizes)
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Draw the initial weights."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif name.endswith(("_emb", "wte")):
                parameter.normal_(0.0, 0.3)
            elif "features" in name:
                # never trained, so rounded at once to what the exported file can hold
                parameter.normal_(0.0, 4.0 if "coord" in name else 2.0)
                parameter.copy_(parameter.bfloat16())
            elif parameter.ndim == 2:
                ends = ("attn.proj.weight", ".mlp.fc2.weight", "lm_head.weight")
                small = name.endswith(ends)
                parameter.normal_(0.0, (0.3 if small else 1.0) / math.sqrt(parameter.shape[1]))

    def embed_image(self, crops: Tensor, tiling: tuple[int, int]) -> Tensor:
        """Return the image embeddings [1, cells, dim] of one picture's crops."""
        encoded = self.vision.encode(crops)
        pooled = self.vision.pooled(encoded[None, 1:], tiling)
        return self.vision.project(encoded[:1], pooled)

    def prefix(self, image: Tensor) -> Cache:
        """Return the keys and values of BOS and the image, which see each other both ways."""
        start = self.text.wte[0].expand(image.shape[0], 1, -1).to(image.dtype)
        positions = torch.arange(PREFIX, device=image.device).expand(image.shape[0], -1)
        return self.text(torch.cat([start, image], 1), positions, None)[1]

    def embed(self, tokens: Tensor, kinds: Tensor, values: Tensor) -> Tensor:
        """Embed tokens (kind 0), coordinates (kind 1) and sizes (kind 2)."""
        x = self.text.wte[tokens]
        x = torch.where((kinds == 1)[..., None], self.region.encode_coord(values[..., :1]), x)
        return torch.where((kinds == 2)[..., None], self.region.encode_size(values), x)
