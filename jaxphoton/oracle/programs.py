"""The oracle's programs: a whole prompt, one position and a reading, with a dense cache and no kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import io_callback

from jaxphoton.layers.attention import TEXT_BLOCK
from jaxphoton.layers.cache import DenseCache, dense_attend_blocks
from jaxphoton.models.protocol import Family, Kernels, Segments

PLAIN = Kernels("plain")


class Further(NamedTuple):
    """A further image block: its ids int32 [1, P], where it begins, and its embeddings [1, N, D]."""

    ids: Any
    start: Any
    embeddings: Any


def block_ids(segments: Segments, family: Family) -> np.ndarray:
    """int32 [max_context]: the number of the image block that a position is in, TEXT_BLOCK for none."""
    blocks = np.full(family.max_context, TEXT_BLOCK, np.int32)
    if not family.causal:
        prefix = len(segments.prefix)
        blocks[:prefix] = 0
        for number, (start, stop) in enumerate(segments.blocks, 1):
            blocks[prefix + start : prefix + stop] = number
    return blocks


def prefill(family: Family, params: Any, prefix, embeddings, ids, fed, length, blocks, further):
    """A whole prompt, padded at its end: ids int32 [1, T], fed int32 [1, T, F] behind a prefix int32 [1, P] or None;
    `blocks` as of `block_ids`, and what stands where."""
    network = family.network

    def embedded(ids, embeddings):
        if not family.fixed_prefix:
            return network.embed_prefix(params, ids, embeddings)
        return network.embed_prefix(params, None, embeddings)[:, -ids.shape[1] :]

    x = network.embed(params, jnp.maximum(ids, 0), fed)
    if prefix is not None:
        x = jnp.concatenate([embedded(prefix, embeddings), x], axis=1)
    for block in further:
        x = lax.dynamic_update_slice_in_dim(x, embedded(block.ids, block.embeddings), block.start, axis=1)
    positions = jnp.arange(x.shape[1], dtype=jnp.int32)[None]
    spec, dtype = family.cache, network.dtype(params)
    cache = DenseCache.zeros(spec.n_layers, spec.n_kv_heads, spec.head_dim, 1, family.max_context, dtype)
    hidden, margin, cache = _forward(family, params, x, positions, blocks, cache)
    margin = jnp.where(positions >= length, jnp.inf, margin).min(axis=1)
    return _predict(family, params, hidden[:, length - 1], margin), cache


def step(family: Family, params: Any, cache: DenseCache, ids, fed, positions):
    """One position, behind any prefix."""
    x = family.network.embed(params, ids, fed)
    blocks = jnp.full((1, family.max_context), TEXT_BLOCK, jnp.int32)
    hidden, margin, cache = _forward(family, params, x, positions, blocks, cache)
    return _predict(family, params, hidden[:, 0], margin[:, 0]), cache


def _forward(family: Family, params: Any, x, positions, blocks, cache):
    """(hidden [1, T, D], the smallest margin of any layer, float32 [1, T], cache)."""
    margins: list[jax.Array] = []
    attend = dense_attend_blocks(positions, blocks)
    hidden, cache = family.network.forward(params, x, positions, attend, cache, PLAIN, margins)
    margin = jnp.stack(margins).min(axis=0) if margins else jnp.full(x.shape[:2], jnp.inf, jnp.float32)
    return hidden, margin, cache


def _predict(family: Family, params: Any, hidden: jax.Array, margin: jax.Array) -> tuple[jax.Array, ...]:
    return hidden.astype(jnp.float32), family.network.logits(params, hidden), margin


def read(family: Family, drawn: Callable, params: Any, hidden, token):
    """(columns, log-probability) of the readout behind hidden states [1, D] beside a token int32 [1]; everything that
    is chosen is chosen by `drawn`, on the host."""
    assert family.readout is not None
    shapes = jax.ShapeDtypeStruct((1,), jnp.int32), jax.ShapeDtypeStruct((1,), jnp.float32)

    def draw(wanted: Sequence[tuple[jax.Array, int, jax.Array]]) -> list[tuple[jax.Array, jax.Array]]:
        return [io_callback(drawn, shapes, *one, ordered=True) for one in wanted]

    hidden = hidden.astype(family.network.dtype(params))
    return family.readout.read(params, hidden, token, jnp.ones(1, bool), draw)[1:]
