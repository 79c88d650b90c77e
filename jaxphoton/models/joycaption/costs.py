"""What the parts of a JoyCaption cost: `models.costs.Costs`. No jax.

P patches of a picture, E vision width, D model.
"""

from __future__ import annotations

from jaxphoton.models.costs import Collective, Cost, Matrix, Part, Storage
from jaxphoton.models.joycaption.config import ModelConfig
from jaxphoton.models.llama.costs import LlamaCosts
from jaxphoton.models.protocol import Family
from jaxphoton.models.siglip.costs import pixel_bytes, tower_flops, tower_part


def costs(family: Family) -> JoyCaptionCosts:
    return JoyCaptionCosts(family.config)


class JoyCaptionCosts(LlamaCosts):
    """Of one model."""

    def vision(self) -> Part:
        """The encoder without what is behind the layer that is read, and the projector."""
        c: ModelConfig = self._config
        tower, width = tower_part(c.vision, c.vision_layers), c.text.hidden_size
        projector = [Matrix("vision", 1, width, (columns,)) for columns in (c.vision.hidden_size, width)]
        return Part([*tower.matrices, *projector], tower.others + 2 * width)

    def encode(self, images: int, crops: int, storage: Storage) -> Cost:
        """A picture is a crop: those layers of the encoder that are run, and the projector 2 P (E D + D^2). Bytes: the
        vision weights, uint8 pixels in, embeddings out."""
        c, vision, width = self._config, self._config.vision, self._config.text.hidden_size
        projector = 2 * vision.image_tokens * width * (vision.hidden_size + width)
        flops = crops * (tower_flops(vision, c.vision_layers) + projector)
        data = crops * (pixel_bytes(vision) + vision.image_tokens * width * storage.item)
        weights = int(self.vision().bytes(storage))
        return Cost(flops, weights, data_bytes=data, whole_bytes=weights)

    def encode_collectives(self, crops: int, item: int) -> list[Collective]:
        vision = self._config.vision
        return [Collective("gather", 1, item * crops * vision.image_tokens * vision.hidden_size)]
