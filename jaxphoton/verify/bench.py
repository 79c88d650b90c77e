"""The model under test, with what several checks share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np

from jaxphoton.config import ModelConfig
from jaxphoton.functional import prefill, prompt_inputs
from jaxphoton.image.crops import cut_crops
from jaxphoton.model import text
from jaxphoton.model.params import Params
from jaxphoton.oracle import Oracle, OracleRequest
from jaxphoton.prompt.templates import Prompt
from jaxphoton.skills import registry
from jaxphoton.skills.base import Generation, Token
from jaxphoton.skills.grammar import Grammar, State
from jaxphoton.skills.settings import Settings
from jaxphoton.verify.golden import Case, GoldenModel

# Decoding with nothing forbidden and no end: what the golden `decode` case does.
FREE = Grammar({"free": State()})


class Bench:
    """A golden model loaded into this build."""

    def __init__(self, golden: GoldenModel, params: Params, config: ModelConfig):
        self.golden, self.params, self.config = golden, params, config
        self.tokenizer = config.tokenizer
        self.grammars = {**registry.grammars(config.tokenizer), "free": FREE}
        self._images: dict[int, jax.Array] = {}

    @cached_property
    def oracle(self) -> Oracle:
        return self._oracle("bins")

    @cached_property
    def photon_oracle(self) -> Oracle:
        """Coordinates as bin / (bins - 1)."""
        return self._oracle("bins-1")

    def _oracle(self, divisor: Any) -> Oracle:
        region = dataclasses.replace(self.config.region, coord_divisor=divisor)
        return Oracle(self.params, dataclasses.replace(self.config, region=region))

    def image(self, case: Case) -> jax.Array | None:
        """Embeddings of the picture that the case names; None for text only."""
        index = case.facts.get("image")
        if index is None:
            return None
        if index not in self._images:
            pixels = self.golden.images.read(f"image{index}.pixels")
            self._images[index] = self.oracle.encode_image(cut_crops(pixels, self.config.vision))
        return self._images[index]

    def generate(
        self,
        oracle: Oracle,
        prompt: Iterable[int],
        image: Any,
        grammar: str,
        max_tokens: int,
        max_objects: int = 1 << 20,
    ) -> Generation:
        """Greedy generation from prompt ids."""
        settings = Settings(temperature=0.0, max_tokens=max_tokens, max_objects=max_objects, seed=0)
        request = OracleRequest(plain_prompt(prompt), self.grammars[grammar], settings, image)
        return oracle.run(request)

    def trace(self, prompt: Prompt, image: jax.Array | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One whole prompt: block outputs [L + 1, T, D], logits [T, V] and the final-norm output [T, D]."""
        ids, kinds, values = prompt_inputs(self.config, prompt, image is not None)
        hidden, logits, normed = self._traced(
            self.params,
            ids=ids[None],
            kinds=kinds[None],
            values=values[None],
            image=None if image is None else image[None],
        )
        return np.stack([np.asarray(h)[0] for h in hidden]), np.asarray(logits)[0], np.asarray(normed)[0]

    @cached_property
    def _traced(self):
        return jax.jit(partial(_trace, config=self.config))


def plain_prompt(ids: Iterable[int]) -> Prompt:
    return Prompt(ids=tuple(int(i) for i in ids), values=())


def tokens(ids: Iterable[int], values: Iterable[tuple[float, ...]], coordinate: int, size: int) -> list[Token]:
    """Recorded ids with the recorded values of their coordinates and sizes, in order."""
    rest = iter(values)
    return [Token(int(i), value=tuple(map(float, next(rest))) if i in (coordinate, size) else None) for i in ids]


def _trace(params: Params, config: ModelConfig, ids, kinds, values, image):
    layers: list[jax.Array] = []
    hidden, _ = prefill(params, config, ids, kinds, values, image, layers)
    return layers, text.logits(params.text, hidden), text.final_norm(params.text, hidden)
