"""The device side of a JoyCaption: `models.network.Network`, put together from the modules of the network."""

from __future__ import annotations

import math
from typing import Any

import jax
from jax.typing import DTypeLike

from jaxphoton.layers.placed import placed
from jaxphoton.layers.sharded import by_shares
from jaxphoton.models.joycaption import vision
from jaxphoton.models.joycaption.params import Params, VisionParams, specs
from jaxphoton.models.llama.device import LlamaNetwork
from jaxphoton.models.protocol import Kernels
from jaxphoton.models.siglip import network as siglip


class JoyCaptionNetwork(LlamaNetwork):
    """`models.network.Network` of one model."""

    def specs(self, dtype: DTypeLike, form: Any = None) -> Params:
        return specs(self._config, dtype)

    def counts(self) -> dict[str, int]:
        text, vision = self._config.text, self._config.vision
        inner = math.gcd(vision.intermediate_size, text.hidden_size)
        return super().counts() | {"vision_heads": vision.num_attention_heads, "vision_mlp": inner}

    def encode(self, encoder: VisionParams, *packed: jax.Array, images: int, kernels: Kernels) -> jax.Array:
        encoder, attention = placed(encoder, **kernels.options), siglip.attention_for(kernels, encoder.tower)

        def encode(pixels: jax.Array) -> jax.Array:
            return siglip.encode(encoder.tower, self._config.vision, pixels, attention)

        # Features are gathered, which are a quarter as wide as embeddings.
        return vision.project(encoder, by_shares(encode, packed[0], kernels.crops))
