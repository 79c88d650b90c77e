"""The device side that families around this decoder share: `models.network.Network`, but for the encoder."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from jax.typing import DTypeLike

from jaxphoton.layers.spec import abstract
from jaxphoton.models.adapters import Adapter
from jaxphoton.models.llama import adapters
from jaxphoton.models.llama import network as text
from jaxphoton.models.llama.adapters import TextPairs
from jaxphoton.models.llama.config import TextConfig
from jaxphoton.models.network import Attend, AttendJoined, Kernels


class LlamaNetwork:
    """Of parameters with the decoder under `text` and the encoder under `vision`."""

    def __init__(self, config: Any):
        self._config = config
        self._text: TextConfig = config.text

    def specs(self, dtype: DTypeLike, form: Any = None) -> Any:
        raise NotImplementedError

    def abstract(self, dtype: DTypeLike, form: Any = None) -> Any:
        return abstract(self.specs(dtype, form))

    def counts(self) -> dict[str, int]:
        text = self._text
        return {
            "heads": text.num_attention_heads,
            "kv_heads": text.num_key_value_heads,
            "mlp": text.intermediate_size,
            "vocab": text.vocab_size,
        }

    def encoder(self, params: Any) -> Any:
        return params.vision

    def decoder(self, params: Any) -> Any:
        # Every argument of a launch costs host time: the vision leaves stay behind.
        return dataclasses.replace(params, vision=None)

    def dtype(self, params: Any) -> Any:
        return params.text.wte.dtype

    def kv_scale(self, params: Any) -> None:
        return None

    def adapters(self, dtype: DTypeLike, slots: int, rank: int) -> TextPairs:
        return adapters.room(self._text, dtype, slots, rank)

    def adapter_rank(self, adapter: Adapter) -> int:
        return max((pair.rank for pair in adapter.pairs.values()), default=1)

    def adapter_slot(self, adapter: Adapter, dtype: DTypeLike, rank: int) -> TextPairs:
        return adapters.slot(self._text, adapter, dtype, rank)

    def with_adapters(self, params: Any, pool: TextPairs, slots: jax.Array) -> Any:
        return dataclasses.replace(params, text=adapters.with_adapters(params.text, pool, slots))

    def embed_prefix(self, params: Any, ids: jax.Array | None, embeddings: jax.Array) -> jax.Array:
        assert ids is not None
        return text.embed(params.text, ids, embeddings)

    def embed(self, params: Any, ids: jax.Array, fed: jax.Array) -> jax.Array:
        return text.embed(params.text, ids)

    def forward(
        self,
        params: Any,
        x: jax.Array,
        positions: jax.Array,
        attend: Attend,
        cache: Any,
        kernels: Kernels,
        margins: list[jax.Array] | None = None,
        attend_joined: AttendJoined | None = None,
    ) -> tuple[jax.Array, Any]:
        return text.forward(params.text, self._text, x, positions, attend, cache, attend_joined=attend_joined)

    def logits(self, params: Any, hidden: jax.Array) -> jax.Array:
        return text.logits(params.text, self._text, hidden)
