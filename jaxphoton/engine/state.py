"""What stays on the device from launch to launch: the paged key/value pool and the state of every row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import DTypeLike

from jaxphoton.models.moondream.config import TextConfig
from jaxphoton.models.moondream.network import Attend
from kernels_pallas.dispatch import Target
from kernels_pallas.paged_attention import paged_attention
from kernels_pallas.prefix_attention import prefix_attention

FLOAT8 = jnp.float8_e4m3fn


@dataclass(frozen=True, slots=True)
class Kernels:
    """How a program's attention and sampling are computed.

    Attributes:
      backend: as in `EngineConfig.kernels`.
      target: the device the program is compiled for; None for jax's default device.
    """

    backend: str = "auto"
    target: Target | None = None

    @property
    def options(self) -> dict[str, Any]:
        return {"backend": self.backend, "target": self.target}


@struct.dataclass
class PagedCache:
    """Keys and values of all sequences, donated through every program: one physical allocation.

    Attributes:
      k, v: [L, P, G, K, H].
    """

    k: jax.Array
    v: jax.Array

    @classmethod
    def zeros(cls, config: TextConfig, pages: int, page_size: int, dtype: DTypeLike) -> PagedCache:
        shape = (config.n_layers, pages, page_size, config.n_kv_heads, config.head_dim)
        return cls(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))

    @property
    def page_size(self) -> int:
        return self.k.shape[2]


@struct.dataclass
class RowState:
    """What a row's next step reads of its last one; R rows and one more for padding. Donated like the cache.

    Attributes:
      token: int32 [R + 1], the last sampled id.
      kind: int32 [R + 1], how it is fed (`jaxphoton.models.moondream.inputs`).
      value: float32 [R + 1, 2], its coordinate or size.
      state: int32 [R + 1], of the automaton; DONE once the row has ended for whatever reason.
      objects: int32 [R + 1], completed so far.
    """

    token: jax.Array
    kind: jax.Array
    value: jax.Array
    state: jax.Array
    objects: jax.Array

    @classmethod
    def zeros(cls, rows: int) -> RowState:
        def ints() -> jax.Array:
            return jnp.zeros(rows + 1, jnp.int32)

        return cls(ints(), ints(), jnp.zeros((rows + 1, 2), jnp.float32), ints(), ints())


def paged_attend(
    kernels: Kernels,
    tables: jax.Array,
    positions: jax.Array,
    valid: jax.Array,
    prefixes: jax.Array,
    holes: jax.Array,
    kv_scale: jax.Array | None = None,
) -> Attend:
    """Attention over paged keys and values: causal, and both ways inside an image prefix.

    Args:
      tables: int32 [B, W] page numbers.
      positions: int32 [B, T], logical and consecutive.
      valid: bool [B, T], True for the first entries of a row; the others write to page 0 and see garbage.
      prefixes: int32 [B], length of the image prefix, 0 for text alone.
      holes: int32 [B], unused entries behind the prefix.
      kv_scale: float32 [L, 2], of float8 keys and values; None for 1.
    """
    places = jnp.where(positions < prefixes[:, None], positions, positions + holes[:, None])

    def write_and_attend(layer: int, q: jax.Array, k: jax.Array, v: jax.Array, cache: PagedCache):
        size = cache.page_size
        page = jnp.where(valid, jnp.take_along_axis(tables, places // size, axis=1, mode="clip"), 0)
        scales = {}
        if cache.k.dtype == FLOAT8:
            factors = jnp.ones((cache.k.shape[0], 2), jnp.float32) if kv_scale is None else kv_scale
            k, v = (_to_float8(part, factors[layer, i]) for i, part in enumerate((k, v)))
            scales = {"k_scale": factors[:, 0], "v_scale": factors[:, 1]}
        cache = PagedCache(
            cache.k.at[layer, page, places % size].set(k),
            cache.v.at[layer, page, places % size].set(v),
        )
        pools, options = (cache.k, cache.v, tables), {"layer": layer, **scales, **kernels.options}
        if q.shape[1] == 1:
            lengths = jnp.where(valid, places + 1, 0)[:, 0]
            out = paged_attention(q[:, 0], *pools, lengths, prefixes, holes, **options)[:, None]
        else:
            counts = jnp.sum(valid, axis=1, dtype=jnp.int32)
            out = prefix_attention(q, *pools, positions[:, 0], counts, prefixes, holes, **options)
        return out, cache

    return write_and_attend


def _to_float8(x: jax.Array, scale: jax.Array) -> jax.Array:
    """x / scale, rounded; beyond the largest number to that, since float8_e4m3fn has no infinity."""
    largest = float(jnp.finfo(FLOAT8).max)
    return jnp.clip(x.astype(jnp.float32) / scale, -largest, largest).astype(FLOAT8)
