"""A JoyCaption under test."""

from __future__ import annotations

import dataclasses
import re
from functools import cached_property
from typing import Any

import numpy as np

from jaxphoton.files import read_json
from jaxphoton.models.joycaption.family import JoyCaptionFamily, bound
from jaxphoton.models.joycaption.prompts import DATES, prompt
from jaxphoton.models.llama.checks.bench import LlamaBench
from jaxphoton.models.protocol import Prompt
from jaxphoton.models.registry import MAX_BYTES
from jaxphoton.models.siglip.params import Tower
from jaxphoton.prompt.tokenizer import load_tokenizer
from jaxphoton.weights.load import load_params

# Settings and weights as later releases write them.
NEWER = ("config_v5.json", "model_v5_names.safetensors")
_MESSAGE = re.compile(r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\n\n(.*?)<\|eot_id\|>", re.DOTALL)
_IMAGE = "<|reserved_special_token_70|><|reserved_special_token_69|><|reserved_special_token_71|>"


class JoyCaptionBench(LlamaBench):
    """A golden JoyCaption loaded into this build."""

    family: JoyCaptionFamily

    def recorded(self, image: str) -> np.ndarray:
        return self.golden.case(image)["resized"][None]

    @property
    def image_id(self) -> int:
        return self.family.ids.image

    def split(self, ids: list[int], pictured: bool) -> Prompt:
        """BOS, and what opens and closes the image, are the family's to write."""
        if not pictured:
            return Prompt(tuple(ids[1:]))
        start, end = (ids.index(each) for each in (self.family.ids.image_start, self.family.ids.image_end))
        return Prompt(tuple(ids[end + 1 :]), before=tuple(ids[1:start]))

    def chat(self, text: str) -> Prompt:
        """What the family makes of the messages of a rendered chat."""
        (_, system), *turns = _MESSAGE.findall(text)
        texts = [content.removeprefix(_IMAGE) for _, content in turns]
        encode = load_tokenizer(self.golden.weights).encode
        return prompt(self.family.ids, encode, texts, system.removeprefix(DATES))

    @cached_property
    def tower(self) -> Tower:
        """The encoder with all its layers, of which the model runs some."""
        wte, config = self.params.text.wte, dataclasses.replace(self.family.config, vision_feature_layer=-1)
        return load_params(self.golden.weights, JoyCaptionFamily(config), wte.dtype, wte.sharding).vision.tower

    def newer(self) -> tuple[JoyCaptionFamily, Any] | None:
        """The same model from files of later releases; None where there are none."""
        settings, weights = (self.golden.weights / name for name in NEWER)
        if not weights.is_file():
            return None
        family, wte = bound(read_json(settings, MAX_BYTES)), self.params.text.wte
        return family, load_params(weights, family, wte.dtype, wte.sharding)
