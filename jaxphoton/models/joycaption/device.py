"""The device side of a JoyCaption: `models.network.Network`, put together from the modules of the network."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
from jax.typing import DTypeLike

from jaxphoton.layers.placed import placed
from jaxphoton.models.joycaption import vision
from jaxphoton.models.joycaption.config import ModelConfig
from jaxphoton.models.joycaption.params import Params, VisionParams, abstract, specs
from jaxphoton.models.llama import network as text
from jaxphoton.models.protocol import Attend, AttendJoined, Kernels
from jaxphoton.models.siglip import network as siglip


class JoyCaptionNetwork:
    """`models.network.Network` of one model, but for adapters."""

    def __init__(self, config: ModelConfig):
        self._config = config

    def abstract(self, dtype: DTypeLike, form: Any = None) -> Params:
        return abstract(self._config, dtype)

    def specs(self, dtype: DTypeLike, form: Any = None) -> Params:
        return specs(self._config, dtype)

    def counts(self) -> dict[str, int]:
        text, vision = self._config.text, self._config.vision
        return {
            "heads": text.num_attention_heads,
            "kv_heads": text.num_key_value_heads,
            "mlp": text.intermediate_size,
            "vocab": text.vocab_size,
            "vision_heads": vision.num_attention_heads,
            "vision_mlp": math.gcd(vision.intermediate_size, text.hidden_size),
        }

    def encoder(self, params: Params) -> VisionParams:
        return params.vision

    def decoder(self, params: Params) -> Params:
        # Every argument of a launch costs host time: the vision leaves stay behind.
        return dataclasses.replace(params, vision=None)

    def dtype(self, params: Params) -> Any:
        return params.text.wte.dtype

    def kv_scale(self, params: Params) -> None:
        return None

    def encode(self, encoder: VisionParams, *packed: jax.Array, images: int, kernels: Kernels) -> jax.Array:
        encoder, attention = placed(encoder, **kernels.options), siglip.attention_for(kernels, encoder.tower)
        return vision.project(encoder, siglip.encode(encoder.tower, self._config.vision, packed[0], attention))

    def embed_prefix(self, params: Params, ids: jax.Array | None, embeddings: jax.Array) -> jax.Array:
        assert ids is not None
        return text.embed(params.text, ids, embeddings)

    def embed(self, params: Params, ids: jax.Array, fed: jax.Array) -> jax.Array:
        return text.embed(params.text, ids)

    def forward(
        self,
        params: Params,
        x: jax.Array,
        positions: jax.Array,
        attend: Attend,
        cache: Any,
        kernels: Kernels,
        margins: list[jax.Array] | None = None,
        attend_joined: AttendJoined | None = None,
    ) -> tuple[jax.Array, Any]:
        return text.forward(params.text, self._config.text, x, positions, attend, cache)

    def logits(self, params: Params, hidden: jax.Array) -> jax.Array:
        return text.logits(params.text, self._config.text, hidden)
