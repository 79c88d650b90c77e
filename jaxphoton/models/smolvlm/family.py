"""SmolVLM2 as a family: `protocol.Family`. No jax at import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from jaxphoton.image.crops import Crops
from jaxphoton.models.llama.family import LlamaFamily
from jaxphoton.models.protocol import Guard, Network, Pictures, Prompt, Segments
from jaxphoton.models.smolvlm import lengths
from jaxphoton.models.smolvlm.config import ModelConfig
from jaxphoton.models.smolvlm.pictures import SmolVLMPictures, frame_count
from jaxphoton.models.smolvlm.prompts import Encode, expansion, no_ids
from jaxphoton.models.smolvlm.reading import beside as beside
from jaxphoton.models.smolvlm.reading import config_from_dict, config_to_dict
from jaxphoton.models.smolvlm.skills import SmolVLMSkills
from jaxphoton.requests.settings import Settings

if TYPE_CHECKING:
    from jaxphoton.models.tensors import Tensors

GREEDY = Settings(temperature=0.0, top_p=1.0, max_tokens=512)  # as its model cards do
FLOAT32 = 4


def bound(data: dict[str, Any]) -> SmolVLMFamily:
    """The family of a `config.json`, with what is `beside` it."""
    return of(config_from_dict(data))


def of(config: ModelConfig) -> SmolVLMFamily:
    """The family of settings."""
    return SmolVLMFamily(config)


class SmolVLMFamily(LlamaFamily):
    """A prompt is one BOS and turns, with pictures wherever they stand in them; all of it causal.

    Its prefix ends with the first picture, which is frames with names and an opening token each, and a closing one.
    """

    name: str = "smolvlm"

    def __init__(self, config: ModelConfig):
        super().__init__(config, (config.tokens.end_of_utterance,), GREEDY)
        self.max_context = lengths.max_context(config)
        self.max_crops = config.max_frames
        self.image_tokens = config.max_frames * config.frame_tokens
        self.prefix_lengths: tuple[int, ...] = lengths.prefix_lengths(config)
        image = config.image
        self.pictures: Pictures = SmolVLMPictures(config.vision.image_size, image.longest_edge, image.splitting)

    @property
    def network(self) -> Network:
        if self._network is None:
            from jaxphoton.models.smolvlm.device import SmolVLMNetwork

            self._network = cast(Network, SmolVLMNetwork(self.config))
        return self._network

    def skills(self, encode: Encode = no_ids, clamp_boxes: bool = False) -> SmolVLMSkills:
        return SmolVLMSkills(self.config, encode)

    @property
    def tensors(self) -> Tensors:
        from jaxphoton.models.smolvlm.names import SmolVLMTensors

        return cast("Tensors", SmolVLMTensors(self))

    def to_json(self) -> dict[str, Any]:
        return config_to_dict(self.config)

    def segments(self, prompt: Prompt, image: Crops | None, further: Sequence[Crops] = ()) -> Segments:
        if len(further) != len(prompt.pictures):
            raise ValueError(f"the prompt has places for {len(prompt.pictures)} further pictures, not {len(further)}")
        front, prefix, ids = [self.config.tokens.im_start, *prompt.before], list[int](), list[int]()
        if image is not None:
            prefix = [*front, *self._expanded(image, prompt)]
        elif prompt.alone is None:
            ids = front
        else:
            ids, prompt = [front[0]], Prompt(prompt.alone)
        blocks, start = list[tuple[int, int]](), 0
        for place, picture in zip(prompt.pictures, further, strict=True):
            ids += prompt.ids[start:place]
            block = self._expanded(picture, prompt)
            blocks.append((len(ids), len(ids) + len(block)))
            ids, start = ids + block, place
        ids += prompt.ids[start:]
        fed = np.zeros((len(ids), 0), np.int32)
        return Segments(np.array(prefix, np.int32), np.array(ids, np.int32), fed, tuple(blocks))

    def _expanded(self, picture: Crops, prompt: Prompt) -> list[int]:
        most = self.config.tokens.side
        if not all(0 <= tiles <= most for tiles in picture.tiling):
            raise ValueError(f"a picture has at most {most} tiles a side, not the tiling {picture.tiling}")
        # Prompts of ids alone, such as those of measurements, have nothing between rows.
        return expansion(self.config.tokens, self.config.frame_tokens, picture.tiling, prompt.marks or ((), ()))

    def pack(self, pictures: Sequence[Crops], images: int, crops: int, guard: Guard) -> tuple[np.ndarray, ...]:
        """Pixels of frames uint8 [C, S, S, 3], and int32 [I, max_crops] which of them are each picture's, in order."""
        size, start = self.config.vision.image_size, 0
        pixels = np.zeros((crops, size, size, 3), np.uint8)
        frames = np.zeros((images, self.max_crops), np.int32)
        for index, picture in enumerate(pictures):
            with guard(index):
                count, found = frame_count(picture.tiling), picture.pixels
                # Checked because NumPy would stretch or cast what nearly fits.
                if found.shape != (count, size, size, 3) or found.dtype != np.uint8:
                    raise ValueError(
                        f"frames of the tiling {picture.tiling} must be uint8 {[count, size, size, 3]}, not "
                        f"{found.dtype} {list(found.shape)}"
                    )
                pixels[start : start + count] = found
                frames[index, :count] = np.arange(start, start + count)
                start += count
        return pixels, frames

    def vision_buckets(self, images: int) -> tuple[tuple[int, int], ...]:
        """Single pictures of every usual number of frames; several of those of photos and of squares."""
        counts = lengths.frame_counts(self.config)
        return tuple({(1, count) for count in counts} | {(images, images * count) for count in counts[-2:]})

    def encode_scratch(self, images: int, crops: int, item: int, ways: int = 1) -> int:
        config, vision = self.config, self.config.vision
        own, patches = -(-crops // ways), vision.image_tokens
        widths = 5 * vision.hidden_size + 2 * vision.intermediate_size
        scores = own * vision.num_attention_heads * patches * patches * (FLOAT32 + item)
        embeddings = (crops * config.frame_tokens + images * self.image_tokens) * self.width
        return scores + (own * patches * widths + embeddings) * item
