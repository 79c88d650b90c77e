"""A model around this decoder under test: recorded ids as its prompts, and all that one goes through."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxphoton.layers.attention import attend
from jaxphoton.models.llama import network as text
from jaxphoton.models.protocol import IMAGE, Prompt
from jaxphoton.oracle.oracle import Picture
from jaxphoton.verify.bench import Bench
from jaxphoton.verify.report import Findings
from kernels_pallas.dispatch import Index

STEP = 64  # prompts are padded to a multiple of this, so that few lengths compile


class Traced(NamedTuple):
    """What one prompt of T positions went through.

    Attributes:
      hidden: the input, then every block's output, [T, D] each.
      normed: [T, D] behind the final norm.
      logits: [T, V].
    """

    hidden: list[np.ndarray]
    normed: np.ndarray
    logits: np.ndarray


class LlamaBench(Bench):
    """A golden model with the decoder under `text`, of settings with `text`."""

    @property
    def image_id(self) -> int:
        """Stands for an image embedding in recorded ids."""
        raise NotImplementedError

    def split(self, ids: list[int], pictured: bool) -> Prompt:
        """Recorded ids, all of them from BOS on, as a prompt of the family."""
        raise NotImplementedError

    def written(self, prompt: Prompt, picture: Picture | None) -> np.ndarray:
        """The ids that the family makes of a prompt, as they are recorded."""
        segments = self.family.segments(prompt, None if picture is None else picture.crops)
        ids = np.concatenate([segments.prefix, segments.ids])
        return np.where(ids == IMAGE, self.image_id, ids)

    def prompt(self, ids: np.ndarray, picture: Picture | None, findings: Findings) -> Prompt:
        """`split`; the family must make the same ids of it."""
        prompt = self.split(ids.tolist(), picture is not None)
        findings.equal("prompt", self.written(prompt, picture), ids)
        return prompt

    def trace(self, prompt: Prompt, picture: Picture | None) -> Traced:
        """One whole prompt, with everything on the way."""
        segments = self.family.segments(prompt, None if picture is None else picture.crops)
        ids = np.concatenate([segments.prefix, segments.ids])
        padded = np.pad(ids, (0, -len(ids) % STEP))[None]
        traced = self._traced(self.params, padded, None if picture is None else picture.embeddings[None])
        return Traced(*jax.tree.map(lambda leaf: np.asarray(leaf)[0, : len(ids)], traced))

    @cached_property
    def _traced(self):
        config, network = self.family.config.text, self.family.network

        def traced(params: Any, ids: jax.Array, embeddings: jax.Array | None):
            x = text.embed(params.text, ids, embeddings)
            positions = jnp.arange(ids.shape[1], dtype=jnp.int32)[None]
            mask, seen = positions[:, None, :] <= positions[:, :, None], [x]

            def causal(layer: Index, q: jax.Array, k: jax.Array, v: jax.Array, cache: None):
                return attend(q, k, v, mask), cache

            hidden, _ = text.forward(params.text, config, x, positions, causal, None, seen)
            return seen, text.final_norm(params.text, config, hidden), network.logits(params, hidden)

        return jax.jit(traced)
