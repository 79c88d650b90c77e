"""The auxiliary task on the image embeddings: what each cell of the picture shows."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jaxphoton.measure.shapes.drawing import CLASSES, COLOURS
from jaxphoton.measure.shapes.scenes import Thing
from jaxphoton.measure.shapes.tiling import GRID

from .tokenizer import Words

CENTRES = (np.arange(GRID) + 0.5) / GRID


def cell_targets(scenes: Sequence[Sequence[Thing]]) -> dict[str, np.ndarray]:
    """Return per cell: class and colour (-1: no object), box, and whether a centre is in it."""
    shape = (len(scenes), GRID, GRID)
    classes, colours = np.full(shape, -1, np.int64), np.full(shape, -1, np.int64)
    boxes, centres = np.zeros((*shape, 4), np.float32), np.zeros(shape, np.float32)
    for picture, things in enumerate(scenes):
        for thing in things:
            x0, y0, x1, y1 = thing.box
            rows = np.flatnonzero((y0 < CENTRES) & (y1 > CENTRES))
            columns = np.flatnonzero((x0 < CENTRES) & (x1 > CENTRES))
            cells = np.ix_(np.array([picture]), rows, columns)
            classes[cells] = CLASSES.index(thing.name)
            colours[cells] = COLOURS.index(thing.colour)
            x, y = thing.centre
            boxes[cells] = (x, y, x1 - x0, y1 - y0)
            centres[picture, int(y * GRID), int(x * GRID)] = 1.0
    flat = {"classes": classes, "colours": colours, "centres": centres}
    return {name: value.reshape(len(scenes), -1) for name, value in flat.items()} | {
        "boxes": boxes.reshape(len(scenes), -1, 4)
    }


class AuxiliaryHead(nn.Module):
    """Reads classes and colours off the image embeddings by the embeddings of their words.

    Using the word embeddings lets the image speak the language of the prompts from the start.
    """

    def __init__(self, words: Words, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))
        self.found = nn.Linear(dim, 2)
        self.box = nn.Linear(dim, 4)
        for name, group in (("classes", CLASSES), ("colours", COLOURS)):
            ids = torch.tensor([words.single(word) for word in group])
            self.register_buffer(name, ids, persistent=False)

    def by_words(self, image: Tensor, wte: Tensor, ids: Tensor) -> Tensor:
        """Return logits over the words of the ids."""
        return self.scale * image @ F.normalize(wte[ids], dim=-1).to(image.dtype).T

    def forward(self, image: Tensor, wte: Tensor, targets: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the loss, and class and colour accuracy on object cells with box error."""
        classes, colours = targets["classes"].flatten(), targets["colours"].flatten()
        inside = (classes >= 0).float()
        amount = inside.sum().clamp(min=1.0)
        flat = image.flatten(0, 1)
        class_logits = self.by_words(flat, wte, self.classes).float()
        colour_logits = self.by_words(flat, wte, self.colours).float()
        class_loss = F.cross_entropy(class_logits, classes, ignore_index=-1)
        colour_loss = F.cross_entropy(colour_logits, colours, ignore_index=-1)
        found = self.found(flat).float()
        found_loss = F.binary_cross_entropy_with_logits(found[:, 0], inside)
        centre_loss = F.binary_cross_entropy_with_logits(
            found[:, 1], targets["centres"].flatten(), pos_weight=flat.new_tensor(5.0).float()
        )
        error = (self.box(flat).float() - targets["boxes"].flatten(0, 1)).abs().sum(-1)
        box_error = (error * inside).sum() / amount
        loss = class_loss + 0.5 * colour_loss + found_loss + centre_loss + 0.5 * box_error
        right = [
            ((logits.argmax(-1) == wanted).float() * inside).sum() / amount
            for logits, wanted in ((class_logits, classes), (colour_logits, colours))
        ]
        return loss, torch.stack([*right, box_error]).detach()
