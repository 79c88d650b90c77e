"""JoyCaption as a family: `protocol.Family`. No jax at import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from jaxphoton.image.crops import Crops
from jaxphoton.models.joycaption.config import ModelConfig, SpecialIds
from jaxphoton.models.joycaption.pictures import JoyCaptionPictures
from jaxphoton.models.joycaption.prompts import Encode, no_ids
from jaxphoton.models.joycaption.reading import beside as beside
from jaxphoton.models.joycaption.reading import config_from_dict, config_to_dict
from jaxphoton.models.joycaption.skills import JoyCaptionSkills
from jaxphoton.models.llama.family import LlamaFamily
from jaxphoton.models.protocol import IMAGE, Guard, Network, Pictures, Prompt, Segments
from jaxphoton.requests.settings import Settings

if TYPE_CHECKING:
    from jaxphoton.models.tensors import Tensors

# Positions that are kept room for. Llama 3.1 could have 131,072, of which a caption needs a hundredth.
MAX_CONTEXT = 4096
AUTHORS = Settings(temperature=0.6, top_p=0.9, max_tokens=512)
BEFORE = (64, 256)  # positions in front of an image that prefixes are compiled for: the model's own system text, longer
FLOAT32 = 4


def bound(data: dict[str, Any]) -> JoyCaptionFamily:
    """The family of a `config.json`."""
    return of(config_from_dict(data))


def of(config: ModelConfig) -> JoyCaptionFamily:
    """The family of settings."""
    return JoyCaptionFamily(config)


class JoyCaptionFamily(LlamaFamily):
    """A prompt is BOS, a system message, and turns of which the first begins with the image; all of it causal."""

    name: str = "joycaption"
    max_crops: int = 1

    def __init__(self, config: ModelConfig):
        vision = config.vision
        self.ids = SpecialIds(config.bos_token_id, config.image_token_index)
        super().__init__(config, (*self.ids.stops, *config.eos_token_id), AUTHORS)
        self.max_context = min(config.text.max_position_embeddings, MAX_CONTEXT)
        self.image_tokens = vision.image_tokens
        self.prefix_lengths: tuple[int, ...] = tuple(self.image_tokens + before for before in BEFORE)
        self.pictures: Pictures = JoyCaptionPictures(vision.image_size, config.resample)

    @property
    def network(self) -> Network:
        if self._network is None:
            from jaxphoton.models.joycaption.device import JoyCaptionNetwork

            self._network = cast(Network, JoyCaptionNetwork(self.config))
        return self._network

    def skills(self, encode: Encode = no_ids, clamp_boxes: bool = False) -> JoyCaptionSkills:
        return JoyCaptionSkills(self.ids, encode)

    @property
    def tensors(self) -> Tensors:
        from jaxphoton.models.joycaption.names import JoyCaptionTensors

        return cast("Tensors", JoyCaptionTensors(self))

    def to_json(self) -> dict[str, Any]:
        return config_to_dict(self.config)

    def segments(self, prompt: Prompt, image: Crops | None, further: Sequence[Crops] = ()) -> Segments:
        if further or prompt.pictures:
            raise ValueError("this model looks at one picture, and here are more")
        front, prefix, ids = (self.ids.bos, *prompt.before), (), prompt.ids
        if image is None:
            ids = (*front, *ids)
        else:
            prefix = (*front, self.ids.image_start, *[IMAGE] * self.image_tokens)
            ids = (self.ids.image_end, *ids)
        return Segments(np.array(prefix, np.int32), np.array(ids, np.int32), np.zeros((len(ids), 0), np.int32))

    def pack(self, pictures: Sequence[Crops], images: int, crops: int, guard: Guard) -> tuple[np.ndarray, ...]:
        size = self.config.vision.image_size
        pixels = np.zeros((images, size, size, 3), np.uint8)
        for index, picture in enumerate(pictures):
            with guard(index):
                # Checked because NumPy would stretch or cast what nearly fits.
                if picture.pixels.shape != (1, size, size, 3) or picture.pixels.dtype != np.uint8:
                    found = f"{picture.pixels.dtype} {list(picture.pixels.shape)}"
                    raise ValueError(f"a picture must be uint8 {[1, size, size, 3]}, not {found}")
                pixels[index] = picture.pixels[0]
        return (pixels,)

    def vision_buckets(self, images: int) -> tuple[tuple[int, int], ...]:
        return tuple({(1, 1), (images, images)})

    def encode_scratch(self, images: int, crops: int, item: int, ways: int = 1) -> int:
        # Devices share the pictures.
        vision, patches, own = self.config.vision, self.image_tokens, -(-crops // ways)
        widths = 5 * vision.hidden_size + 2 * vision.intermediate_size
        scores = own * vision.num_attention_heads * patches * patches * (FLOAT32 + item)
        return scores + patches * (own * widths + 2 * images * self.width) * item
