"""Moondream 2 and 3 as a family: `protocol.Family`. No jax at import."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxphoton.constraints.grammar import Grammar
from jaxphoton.image.crops import Crops
from jaxphoton.models.moondream.config import ModelConfig, TextConfig
from jaxphoton.models.moondream.grammars import grammars
from jaxphoton.models.moondream.pictures import MoondreamPictures, pack_crops
from jaxphoton.models.moondream.prompts import Encode, reasons_by_default
from jaxphoton.models.moondream.reading import config_from_dict, config_to_dict
from jaxphoton.models.moondream.readouts import RegionReadout
from jaxphoton.models.moondream.skills import MoondreamSkills, no_ids
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
    from jaxphoton.models.moondream.names import MoondreamTensors

STARMIE = "moondream/starmie-v1"  # the tokenizer of Moondream since 2025; the one beside published weights is stale
STARMIE_VOCAB = 51200
PUBLISHED_BY = ("vikhyatk/moondream2", "moondream/")
FLOAT32 = 4


def bound(data: dict[str, Any]) -> MoondreamFamily:
    """The family of a `config.json`."""
    return of(config_from_dict(data))


def of(config: ModelConfig) -> MoondreamFamily:
    """The family of settings."""
    return MoondreamFamily(config)


class MoondreamFamily:
    """A prompt is BOS, the image, and the ids of a skill; without an image it is BOS and these ids."""

    name: str = "moondream"
    causal: bool = False
    fixed_prefix: bool = True
    defaults: Settings = Settings(temperature=0.2, top_p=0.9, max_tokens=768)

    def __init__(self, config: ModelConfig):
        text, vision, ids = config.text, config.vision, config.tokenizer
        self.config: Any = config
        self.vocab_size, self.max_context = text.vocab_size, text.max_context
        self.width, self.heads = text.dim, text.n_heads
        self.cache = CacheSpec(text.n_layers, text.n_kv_heads, text.head_dim)
        self.prefix_lengths: tuple[int, ...] = (text.prefix_attn,)
        self.image_tokens, self.max_crops = vision.image_tokens, 1 + vision.max_crops
        self.pictures: Pictures = MoondreamPictures(vision)
        self.grammars: Mapping[str, Grammar] = grammars(ids)
        self.stop_ids = frozenset({ids.eos_id})
        self.answer_id: int | None = ids.answer_id
        self.reasons = reasons_by_default(ids)
        self._readout = RegionReadout(config)
        self.readout: Readout | None = self._readout
        self._network: Network | None = None
        # The ids tell: in the tokenizer of January 2025, beside the weights, 0 is "!", and end-of-text is 50256.
        starmie = ids.bos_id == 0 and text.vocab_size == STARMIE_VOCAB
        self.tokenizer = TokenizerPlace(STARMIE if starmie else None, PUBLISHED_BY, ids.bos_id)
        self._prefix = np.array([ids.bos_id, *[IMAGE] * vision.image_tokens], np.int32)
        self._no_prefix, self._bos = np.zeros(0, np.int32), (ids.bos_id,)

    @property
    def network(self) -> Network:
        if self._network is None:
            from jaxphoton.models.moondream.device import MoondreamNetwork

            self._network = MoondreamNetwork(self.config)
        return self._network

    def skills(self, encode: Encode = no_ids, clamp_boxes: bool = False) -> MoondreamSkills:
        return MoondreamSkills(self.config.tokenizer, encode, clamp_boxes)

    def with_coordinates(self, divisor: str) -> MoondreamFamily:
        region = dataclasses.replace(self.config.region, coord_divisor=divisor)
        return of(dataclasses.replace(self.config, region=region))

    def to_json(self) -> dict[str, Any]:
        return config_to_dict(self.config)

    def segments(self, prompt: Prompt, image: Crops | None, further: Sequence[Crops] = ()) -> Segments:
        if len(further) != len(prompt.pictures):
            raise ValueError(f"the prompt has places for {len(prompt.pictures)} further pictures, not {len(further)}")
        lead = () if image is not None else self._bos
        ids = np.array([*lead, *prompt.ids], np.int32)
        fed = np.zeros((len(ids), self._readout.fed), np.int32)
        for place, values in prompt.values:
            fed[len(lead) + place] = self._readout.feed(values)
        prefix, blocks = self._no_prefix if image is None else self._prefix, ()
        if further:
            size, places = self.image_tokens, len(lead) + np.array(prompt.pictures)
            every = np.repeat(places, size)
            ids, fed = np.insert(ids, every, IMAGE), np.insert(fed, every, 0, axis=0)
            starts = places + size * np.arange(len(places))
            blocks = tuple((start, start + size) for start in starts.tolist())
        return Segments(prefix, ids, fed, blocks)

    def pack(self, pictures: Sequence[Crops], images: int, crops: int, guard: Guard) -> tuple[np.ndarray, ...]:
        return pack_crops(pictures, crops, self.config.vision, guard)

    def vision_buckets(self, images: int) -> tuple[tuple[int, int], ...]:
        """Single images of few, of many and of the most crops; several images of few and of many."""
        most = self.max_crops
        singles = {(1, crops) for crops in (1, 5, 10, most) if crops <= most}
        several = {(images, images * crops) for crops in (5, 10) if crops <= most} if images > 1 else set()
        return tuple(singles | several)

    def layer_scratch(self, tokens: int, item: int, ways: int = 1) -> int:
        """Of the linear layers: qkv and twice the inner width, which devices share, and twice the model width for each
        token."""
        text: TextConfig = self.config.text
        dense = tokens * ((text.qkv_dim + 2 * text.ff_dim) // ways + 2 * text.dim) * item
        if text.moe is None:
            return dense
        # With experts also the inputs and results of all that were chosen, sorted and in order, and one expert widened.
        chosen = tokens * text.moe.experts_per_token
        return dense + (3 * chosen * item + 3 * text.moe.expert_inner_dim * FLOAT32) * text.dim

    def encode_scratch(self, images: int, crops: int, item: int, ways: int = 1) -> int:
        vision = self.config.vision
        patches = vision.image_tokens
        widths = 3 * vision.enc_dim + 2 * vision.enc_ff_dim + 2 * vision.enc_dim
        own = -(-crops // ways)
        scores = own * vision.enc_n_heads * patches * patches * (FLOAT32 + item)
        gathered = crops * patches * vision.enc_dim * item if ways > 1 else 0
        return scores + gathered + own * patches * widths * item + images * patches * vision.proj_out_dim * item

    @property
    def tensors(self) -> MoondreamTensors:
        from jaxphoton.models.moondream.names import MoondreamTensors

        return MoondreamTensors(self.config)
