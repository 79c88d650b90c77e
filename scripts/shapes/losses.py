"""Losses of a batch: pictures to image embeddings, and packed prompts behind them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .layers import PREFIX
from .net import Shapes

Composition = Sequence[tuple[tuple[int, int], int]]


def embed_pictures(net: Shapes, crops: Tensor, composition: Composition) -> Tensor:
    """Return the image embeddings of pictures with several tilings.

    `crops` holds all global crops, then the tiles of all pictures, in the order of the composition.
    """
    pictures = sum(count for _, count in composition)
    encoded = net.vision.encode(crops)
    start, pooled = pictures, []
    for tiling, count in composition:
        tiles = tiling[0] * tiling[1]
        local = encoded[start : start + count * tiles].unflatten(0, (count, tiles))
        pooled.append(net.vision.pooled(local, tiling))
        start += count * tiles
    # the residual stream of the decoder stays in float32 under autocast
    return net.vision.project(encoded[:pictures], torch.cat(pooled)).float()


def lane_mask(owner: Tensor) -> Tensor:
    """Return which keys a lane position sees: the image, and its own prompt up to itself."""
    length = owner.shape[-1]
    own = (owner[:, :, None] == owner[:, None, :]) & (owner[:, :, None] >= 0)
    own = own & torch.ones(length, length, dtype=torch.bool).tril()
    image = torch.ones(*owner.shape, PREFIX, dtype=torch.bool)
    return torch.cat([image, own], -1)[:, None]


def run_lanes(net: Shapes, image: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Return the hidden states of the packed prompts [pictures * lanes, length, dim]."""
    lanes = batch["tokens"].shape[1]
    past = [(k.repeat_interleave(lanes, 0), v.repeat_interleave(lanes, 0)) for k, v in net.prefix(image)]
    tokens, kinds, values, positions, owner = (
        batch[name].flatten(0, 1) for name in ("tokens", "kinds", "values", "positions", "owner")
    )
    x = net.embed(tokens, kinds, values).to(image.dtype)
    return net.text(x, positions, lane_mask(owner), past)[0]


def soft_bins(logits: Tensor, target: Tensor, sigma: Tensor) -> Tensor:
    """Return the mean cross entropy to Gaussians around fractional bins (negative: unused)."""
    bins = torch.arange(logits.shape[-1], dtype=torch.float32)
    wanted = torch.softmax(-0.5 * ((bins - target[:, None]) / sigma) ** 2, -1)
    loss = -(wanted * torch.log_softmax(logits.float(), -1)).sum(-1)
    used = (target >= 0).float()
    return (loss * used).sum() / used.sum().clamp(min=1.0)


def language_loss(net: Shapes, image: Tensor, batch: dict[str, Tensor], sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, its parts (tokens, coordinates, sizes) and the argmax tokens."""
    hidden = run_lanes(net, image, batch).flatten(0, 1)
    logits = net.text.logits(hidden).float()
    weights, targets = batch["weights"].flatten(), batch["targets"].flatten()
    entropy = F.cross_entropy(logits, targets, ignore_index=-1, reduction="none")
    token_loss = (entropy * weights).sum() / (weights > 0).float().sum().clamp(min=1.0)
    coords = net.region.coord_decoder(hidden[batch["coord_at"]])
    coord_loss = soft_bins(coords, batch["coords"].flatten(), sigma)
    sizes = net.region.sizes(hidden[batch["size_at"]]).flatten(0, 1)
    size_loss = soft_bins(sizes, batch["sizes"].flatten(), sigma)
    loss = token_loss + coord_loss + 0.5 * size_loss
    parts = torch.stack([token_loss, coord_loss, size_loss]).detach()
    return loss, parts, logits.argmax(-1)
