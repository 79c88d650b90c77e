"""The device side of a SmolVLM2: `models.network.Network`, put together from the modules of the network."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxphoton.layers.placed import placed
from jaxphoton.layers.sharded import by_shares
from jaxphoton.models.llama.device import LlamaNetwork
from jaxphoton.models.protocol import Kernels
from jaxphoton.models.siglip import network as siglip
from jaxphoton.models.smolvlm import vision
from jaxphoton.models.smolvlm.params import Params, VisionParams, specs


class SmolVLMNetwork(LlamaNetwork):
    """`models.network.Network` of one model."""

    def specs(self, dtype: DTypeLike, form: Any = None) -> Params:
        return specs(self._config, dtype)

    def counts(self) -> dict[str, int]:
        config = self._config.vision
        return super().counts() | {
            "vision_heads": config.num_attention_heads,
            "vision_mlp": config.intermediate_size,
        }

    def encode(self, encoder: VisionParams, *packed: jax.Array, images: int, kernels: Kernels) -> jax.Array:
        pixels, frames = packed
        encoder, config = placed(encoder, **kernels.options), self._config
        tower, attention = encoder.tower, siglip.attention_for(kernels, encoder.tower)

        def connected(features: jax.Array) -> jax.Array:
            return vision.connect(encoder, features, config.scale_factor)

        if kernels.backend == "auto" and kernels.target is not None and kernels.target.platform == "cpu":
            count = jnp.max(frames) + 1
            embeddings = connected(siglip.encode_in_turn(tower, config.vision, pixels, count, attention))
        else:
            embeddings = by_shares(
                lambda own: connected(siglip.encode(tower, config.vision, own, attention)), pixels, kernels.crops
            )
        return vision.gather(embeddings, frames)
