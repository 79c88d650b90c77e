"""The model under test, with what several checks share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxphoton.constraints.grammar import Grammar, State
from jaxphoton.functional import prefill, prompt_inputs
from jaxphoton.layers.moe import Route
from jaxphoton.models.moondream import grammars as registry
from jaxphoton.models.moondream import network as text
from jaxphoton.models.moondream.config import ModelConfig
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.models.moondream.params import Params
from jaxphoton.models.moondream.prompts import Prompt
from jaxphoton.oracle.oracle import Oracle, OracleRequest, Picture
from jaxphoton.requests.settings import Settings
from jaxphoton.requests.tokens import Generation, Token
from jaxphoton.verify.golden import Case, GoldenModel
from jaxphoton.weights.load import load_model

FLOAT8_FILE = "model_photon_fp8.safetensors"

# Decoding with nothing forbidden and no end: what the golden `decode` case does.
FREE = Grammar({"free": State()})


class Traced(NamedTuple):
    """What one prompt of T positions went through.

    Attributes:
      hidden: the input, then every block's output, [T, D] each.
      logits: [T, V].
      normed: [T, D] behind the final LayerNorm.
      tau: the factors of q and of v in every layer that has them, [T, 2, N] each.
      routes: of every layer with experts, of [T] tokens.
    """

    hidden: list[np.ndarray]
    logits: np.ndarray
    normed: np.ndarray
    tau: list[np.ndarray]
    routes: list[Route]


class Bench:
    """A golden model loaded into this build."""

    def __init__(self, golden: GoldenModel, params: Params, config: ModelConfig):
        self.golden, self.params, self.config = golden, params, config
        self.tokenizer = config.tokenizer
        self.grammars = {**registry.grammars(config.tokenizer), "free": FREE}
        self._images: dict[int, Picture] = {}

    @cached_property
    def oracle(self) -> Oracle:
        return self._oracle("bins")

    @cached_property
    def photon_oracle(self) -> Oracle:
        """Coordinates as bin / (bins - 1)."""
        return self._oracle("bins-1")

    def _oracle(self, divisor: Any) -> Oracle:
        region = dataclasses.replace(self.config.region, coord_divisor=divisor)
        return Oracle(self.params, MoondreamFamily(dataclasses.replace(self.config, region=region)))

    def float8(self, keep: bool) -> Bench:
        """The model with float8 experts, under the other naming scheme; `keep` as `quantized` of `load_model`."""
        wte = self.params.text.wte
        family, params = load_model(self.golden.weights / FLOAT8_FILE, wte.dtype, wte.sharding, keep)
        return Bench(self.golden, params, family.config)

    def image(self, case: Case) -> Picture | None:
        """The picture that the case names; None for text only."""
        index = case.facts.get("image")
        if index is None:
            return None
        if index not in self._images:
            self._images[index] = self.oracle.encode_image(self.golden.crops(f"image{index}", self.config.vision))
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

    def trace(self, prompt: Prompt, image: Picture | None) -> Traced:
        """One whole prompt, with everything on the way."""
        ids, kinds, values = prompt_inputs(self.config, prompt, image is not None)
        traced = self._traced(
            self.params,
            ids=ids[None],
            kinds=kinds[None],
            values=values[None],
            image=None if image is None else image.embeddings[None],
        )
        return Traced(*jax.tree.map(lambda leaf: np.asarray(leaf)[0], traced))

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
    seen = text.Trace()
    hidden, _ = prefill(params, config, ids, kinds, values, image, seen)
    readouts = text.logits(params.text, hidden), text.final_norm(params.text, hidden)
    return seen.hidden, *readouts, seen.tau, seen.routes
