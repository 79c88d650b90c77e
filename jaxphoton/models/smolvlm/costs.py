"""What the parts of a SmolVLM2 cost: `models.costs.Costs`. No jax.

n embeddings of a frame, s scale factor, E vision width, D model.
"""

from __future__ import annotations

from jaxphoton.models.costs import Collective, Cost, Matrix, Part, Storage
from jaxphoton.models.llama.costs import LlamaCosts
from jaxphoton.models.protocol import Family
from jaxphoton.models.siglip.costs import pixel_bytes, tower_flops, tower_part
from jaxphoton.models.smolvlm.config import ModelConfig


def costs(family: Family) -> SmolVLMCosts:
    return SmolVLMCosts(family.config)


class SmolVLMCosts(LlamaCosts):
    """Of one model."""

    def vision(self) -> Part:
        """The encoder, the norm behind it, and the connector."""
        c: ModelConfig = self._config
        tower, dim = tower_part(c.vision, c.vision.num_hidden_layers), c.vision.hidden_size
        connector = Matrix("vision", 1, c.text.hidden_size, (c.scale_factor**2 * dim,))
        return Part([*tower.matrices, connector], tower.others + 2 * dim)

    def encode(self, images: int, crops: int, storage: Storage) -> Cost:
        """A crop is a frame: the encoder, and the connector 2 n s^2 E D. Bytes: the vision weights, uint8 pixels in,
        embeddings of the frames out."""
        c = self._config
        embeddings = c.frame_tokens * c.text.hidden_size
        connector = 2 * embeddings * c.scale_factor**2 * c.vision.hidden_size
        flops = crops * (tower_flops(c.vision, c.vision.num_hidden_layers) + connector)
        data = crops * (pixel_bytes(c.vision) + embeddings * storage.item)
        weights = int(self.vision().bytes(storage))
        return Cost(flops, weights, data_bytes=data, whole_bytes=weights)

    def encode_collectives(self, crops: int, item: int) -> list[Collective]:
        c = self._config
        return [Collective("gather", 1, item * crops * c.frame_tokens * c.text.hidden_size)]
