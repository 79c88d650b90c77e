"""A SmolVLM2 under test."""

from __future__ import annotations

import dataclasses
import re
from functools import cached_property

import numpy as np

from jaxphoton.image.crops import Crops
from jaxphoton.models.llama.checks.bench import LlamaBench
from jaxphoton.models.protocol import Prompt
from jaxphoton.models.smolvlm.config import ModelConfig
from jaxphoton.models.smolvlm.pictures import SmolVLMPictures
from jaxphoton.models.smolvlm.prompts import Encode, Message, prompt
from jaxphoton.prompt.tokenizer import load_tokenizer

UNSPLIT = "_nosplit"  # behind the name of an image: without tiles
_MESSAGE = re.compile(r"(System|User|Assistant):(.*?)<end_of_utterance>\n", re.DOTALL)
_IMAGE = "<image>"


class SmolVLMBench(LlamaBench):
    """A golden SmolVLM2 loaded into this build."""

    @property
    def config(self) -> ModelConfig:
        return self.family.config

    @property
    def pictures(self) -> SmolVLMPictures:
        assert isinstance(self.family.pictures, SmolVLMPictures)
        return self.family.pictures

    @property
    def image_id(self) -> int:
        return self.config.image_token_id

    @cached_property
    def encode(self) -> Encode:
        return load_tokenizer(self.golden.weights).encode

    def recorded(self, image: str) -> np.ndarray:
        return self.golden.case(image)["frames"]

    def crops(self, image: str) -> Crops:
        photo, cut = image.removesuffix(UNSPLIT), not image.endswith(UNSPLIT)
        pictures = dataclasses.replace(self.pictures, splitting=cut and self.pictures.splitting)
        return self.golden.crops(photo, self.recorded(image), pictures, self._resize)

    def split(self, ids: list[int], pictured: bool) -> Prompt:
        """BOS, and all that one picture becomes, are the family's to write."""
        fakes = [index for index, each in enumerate(ids) if each == self.config.tokens.fake]
        if not pictured:
            return Prompt(tuple(ids[1:]))
        marks = tuple(tuple(self.encode(text)) for text in ("\n", "\n\n"))
        return Prompt(tuple(ids[fakes[-1] + 1 :]), before=tuple(ids[1 : fakes[0]]), marks=marks)

    def chat(self, text: str) -> Prompt:
        """What the family makes of the messages of a rendered chat."""
        messages = []
        for role, content in _MESSAGE.findall(text):
            first, *others = content.removeprefix(" ").split(_IMAGE)
            parts = [first, *(part for each in others for part in (None, each))]
            messages.append(Message(role.lower(), tuple(part for part in parts if part != "")))
        return prompt(self.config.tokens, self.encode, messages, self.family.prefix_lengths[-1])
