"""A Moondream under test: coordinates in both conventions, float8 experts, and all that a prompt goes through."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxphoton.functional import adapter_pool, prefill, prompt_inputs, with_adapters
from jaxphoton.image.ways import Resize
from jaxphoton.layers.moe import Route
from jaxphoton.models.adapters import Adapter
from jaxphoton.models.moondream import network as text
from jaxphoton.models.moondream.adapters import TextPairs
from jaxphoton.models.moondream.config import ModelConfig
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.models.moondream.params import Params
from jaxphoton.models.protocol import Family, Prompt
from jaxphoton.oracle.oracle import ADAPTER_RANK, Oracle, Picture
from jaxphoton.requests.tokens import Token
from jaxphoton.verify.bench import Bench
from jaxphoton.verify.golden import GoldenModel
from jaxphoton.weights.load import load_model

FLOAT8_FILE = "model_photon_fp8.safetensors"


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


class MoondreamBench(Bench):
    """A golden Moondream loaded into this build."""

    def __init__(self, golden: GoldenModel, params: Params, family: Family, resize: Resize = "exact"):
        super().__init__(golden, params, family, resize)
        self.config, self.tokenizer = family.config, family.config.tokenizer

    @cached_property
    def oracle(self) -> Oracle:
        return self._oracle("bins")

    @cached_property
    def photon_oracle(self) -> Oracle:
        """Coordinates as bin / (bins - 1)."""
        return self._oracle("bins-1")

    def recorded(self, image: str) -> np.ndarray:
        return self.golden.images.read(f"{image}.crops")

    def _oracle(self, divisor: Any) -> Oracle:
        region = dataclasses.replace(self.config.region, coord_divisor=divisor)
        return Oracle(self.params, MoondreamFamily(dataclasses.replace(self.config, region=region)))

    def float8(self, keep: bool) -> MoondreamBench:
        """The model with float8 experts, under the other naming scheme; `keep` as `quantized` of `load_model`."""
        wte = self.params.text.wte
        family, params = load_model(self.golden.weights / FLOAT8_FILE, wte.dtype, wte.sharding, keep)
        return MoondreamBench(self.golden, params, family, self._resize)

    def trace(self, prompt: Prompt, image: Picture | None, adapter: Adapter | None = None) -> Traced:
        """One whole prompt, with everything on the way."""
        ids, kinds, values = prompt_inputs(self.config, prompt, image is not None)
        wte = self.params.text.wte
        traced = self._traced(
            self.params,
            pool=None if adapter is None else adapter_pool(self.config, [adapter], wte.dtype, ADAPTER_RANK),
            ids=ids[None],
            kinds=kinds[None],
            values=values[None],
            image=None if image is None else image.embeddings[None],
        )
        return Traced(*jax.tree.map(lambda leaf: np.asarray(leaf)[0], traced))

    @cached_property
    def _traced(self):
        return jax.jit(partial(_trace, config=self.config))


def tokens(ids: Iterable[int], values: Iterable[tuple[float, ...]], coordinate: int, size: int) -> list[Token]:
    """Recorded ids with the recorded values of their coordinates and sizes, in order."""
    rest = iter(values)
    return [Token(int(i), value=tuple(map(float, next(rest))) if i in (coordinate, size) else None) for i in ids]


def _trace(params: Params, config: ModelConfig, pool: TextPairs | None, ids, kinds, values, image):
    if pool is not None:
        params = with_adapters(params, config, pool, jnp.zeros(len(ids), jnp.int32))
    seen = text.Trace()
    hidden, _ = prefill(params, config, ids, kinds, values, image, seen)
    readouts = text.logits(params.text, hidden), text.final_norm(params.text, hidden)
    return seen.hidden, *readouts, seen.tau, seen.routes
