"""The device side of a Moondream: `models.network.Network`, put together from the modules of the network."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from jaxphoton.layers import moe
from jaxphoton.layers.attention import attend as plain
from jaxphoton.layers.attention import cudnn_attend
from jaxphoton.layers.fused import StepParts
from jaxphoton.layers.placed import placed
from jaxphoton.models.adapters import Adapter
from jaxphoton.models.moondream import adapters, inputs, packed, vision
from jaxphoton.models.moondream import network as text
from jaxphoton.models.moondream.config import ModelConfig
from jaxphoton.models.moondream.packed import PackedPairs
from jaxphoton.models.moondream.params import PUBLISHED, Form, Params, VisionParams, abstract, specs
from jaxphoton.models.protocol import Attend, AttendJoined, Kernels


class MoondreamNetwork:
    """`models.network.Network` of one model."""

    def __init__(self, config: ModelConfig):
        self._config = config

    def abstract(self, dtype: DTypeLike, form: Form | None = None) -> Params:
        return abstract(self._config, dtype, form or PUBLISHED)

    def specs(self, dtype: DTypeLike, form: Form | None = None) -> Params:
        return specs(self._config, dtype, form or PUBLISHED)

    def counts(self) -> dict[str, int]:
        text, vision = self._config.text, self._config.vision
        counts = {"heads": text.n_heads, "kv_heads": text.n_kv_heads, "mlp": text.ff_dim, "vocab": text.vocab_size}
        if text.moe is not None:
            counts |= {"experts": text.moe.num_experts, "expert_mlp": text.moe.expert_inner_dim}
        inner = math.gcd(vision.enc_ff_dim, vision.proj_inner_dim)
        return counts | {"vision_heads": vision.enc_n_heads, "vision_mlp": inner}

    def encoder(self, params: Params) -> VisionParams:
        return params.vision

    def decoder(self, params: Params) -> Params:
        # Every argument of a launch costs host time: the vision leaves stay behind.
        return dataclasses.replace(params, vision=None)

    def dtype(self, params: Params) -> Any:
        return params.text.wte.dtype

    def kv_scale(self, params: Params) -> Any:
        return params.text.kv_scale

    def adapters(self, dtype: DTypeLike, slots: int, rank: int) -> PackedPairs:
        return packed.room(self._config.text, dtype, slots, rank)

    def adapter_rank(self, adapter: Adapter) -> int:
        return adapters.rank_of(self._config.text, adapter)

    def adapter_slot(self, adapter: Adapter, dtype: DTypeLike, rank: int) -> PackedPairs:
        return packed.pack(adapters.slot(self._config.text, adapter, dtype, rank))

    def with_adapters(self, params: Params, pool: PackedPairs, slots: jax.Array) -> Params:
        return adapters.with_adapters(params, self._config.text, pool, slots)

    def encode(self, encoder: VisionParams, *packed: jax.Array, images: int, kernels: Kernels) -> jax.Array:
        fused = kernels.backend in ("auto", "triton") and kernels.target is not None
        on_cuda = fused and kernels.target is not None and kernels.target.platform == "cuda"
        encoder = placed(encoder, **kernels.options)
        pixels, rows, columns, owner = packed
        crops = (pixels, rows, columns, owner, images)
        if kernels.backend == "auto" and kernels.target is not None and kernels.target.platform == "cpu":
            return vision.embed_in_turn(encoder, self._config.vision, *crops)
        attention = cudnn_attend if on_cuda and encoder.pos_emb.dtype == jnp.bfloat16 else plain
        return vision.embed_images(encoder, self._config.vision, *crops, attention, kernels.crops)

    def embed_prefix(self, params: Params, ids: jax.Array | None, embeddings: jax.Array) -> jax.Array:
        images, _, width = embeddings.shape
        bos = jnp.broadcast_to(params.text.wte[self._config.tokenizer.bos_id][None, None], (images, 1, width))
        return jnp.concatenate([bos, embeddings], axis=1)

    def embed(self, params: Params, ids: jax.Array, fed: jax.Array) -> jax.Array:
        return inputs.embed(params, ids, fed[..., 0], lax.bitcast_convert_type(fed[..., 1:], jnp.float32))

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
        trace = text.Trace()
        experts = moe.PLAIN if kernels.backend == "plain" else moe.by_kernels(**kernels.options)
        step = StepParts(kernels.step, **kernels.options, attend=attend_joined) if kernels.step else None
        hidden, cache = text.forward(params.text, self._config.text, x, positions, attend, cache, experts, trace, step)
        if margins is not None:
            margins += [moe.gap(route) for route in trace.routes]
        return hidden, cache

    def logits(self, params: Params, hidden: jax.Array) -> jax.Array:
        return text.logits(params.text, hidden)
