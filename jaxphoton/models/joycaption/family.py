"""JoyCaption as a family: `protocol.Family`, but for adapters. No jax at import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from jaxphoton.constraints.grammar import Grammar, State
from jaxphoton.image.crops import Crops
from jaxphoton.models.joycaption.config import ModelConfig
from jaxphoton.models.joycaption.pictures import JoyCaptionPictures
from jaxphoton.models.joycaption.prompts import Encode, SpecialIds, no_ids
from jaxphoton.models.joycaption.reading import config_from_dict, config_to_dict
from jaxphoton.models.joycaption.skills import JoyCaptionSkills
from jaxphoton.models.llama.scratch import layer_scratch
from jaxphoton.models.protocol import (
    IMAGE,
    CacheSpec,
    Guard,
    Network,
    Pictures,
    Prompt,
    Readout,
    Segments,
    TokenizerPlace,
)
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


class JoyCaptionFamily:
    """A prompt is BOS, a system message, and turns of which the first begins with the image; all of it causal."""

    name: str = "joycaption"
    causal: bool = True
    fixed_prefix: bool = False
    reasons: bool = False
    max_crops: int = 1

    def __init__(self, config: ModelConfig):
        text, vision = config.text, config.vision
        self.config: Any = config
        self.ids = SpecialIds(config.bos_token_id, config.image_token_index)
        self.vocab_size = text.vocab_size
        self.max_context = min(text.max_position_embeddings, MAX_CONTEXT)
        self.width, self.heads = text.hidden_size, text.num_attention_heads
        self.cache = CacheSpec(text.num_hidden_layers, text.num_key_value_heads, text.head_dim)
        self.image_tokens = vision.image_tokens
        self.prefix_lengths: tuple[int, ...] = tuple(self.image_tokens + before for before in BEFORE)
        self.pictures: Pictures = JoyCaptionPictures(vision.image_size, config.resample)
        self.answer_id: int | None = None
        self.readout: Readout | None = None
        self._network: Network | None = None
        self.stop_ids = self.ids.stops | frozenset(config.eos_token_id + config.generation.eos_token_id)
        self.grammars: Mapping[str, Grammar] = {"text": Grammar({"text": State(stop=self.stop_ids)})}
        self.tokenizer = TokenizerPlace()
        self.defaults: Settings = config.generation.settings(AUTHORS)

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

    def with_coordinates(self, divisor: str) -> JoyCaptionFamily:
        if divisor != "bins":
            raise ValueError("this model has no coordinates")
        return self

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

    def layer_scratch(self, tokens: int, item: int, ways: int = 1) -> int:
        return layer_scratch(self.config.text, tokens, item, ways)

    def encode_scratch(self, images: int, crops: int, item: int, ways: int = 1) -> int:
        vision, patches = self.config.vision, self.image_tokens
        widths = (3 * vision.hidden_size + 2 * vision.intermediate_size) // ways + 2 * vision.hidden_size
        scores = images * vision.num_attention_heads * patches * patches * (FLOAT32 + item) // ways
        return scores + images * patches * (widths + 2 * self.width) * item
