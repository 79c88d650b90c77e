"""Steps with the faults that the checks are there for: small, and compiled like the real ones."""

from __future__ import annotations

import os
import signal

import jax
import jax.numpy as jnp
from jax import lax

from jaxphoton.engine.gpus import Gpu
from jaxphoton.engine.state import PagedCache
from jaxphoton.models.protocol import CacheSpec
from scripts.cuda.programs import Program

LAYERS, ROWS, DIM = 4, 8, 2048


def steps(chip: Gpu) -> list[Program]:
    weights = jax.ShapeDtypeStruct((DIM, DIM), jnp.bfloat16)
    x = jax.ShapeDtypeStruct((ROWS, DIM), jnp.bfloat16)
    pool = jax.eval_shape(lambda: PagedCache.zeros(CacheSpec(LAYERS, 32, 64), 512, 16, jnp.bfloat16))
    arguments = (weights, pool, x)
    return [
        Program("step of a scan", scanned, arguments, (1,), LAYERS, weights, pool),
        Program("step that donates nothing", unrolled, arguments, (), LAYERS, weights, pool),
        Program("step that changes a weight", patched, arguments, (1,), LAYERS, weights, pool),
        Program("step with a wrong shape", unrolled, (weights, pool, weights.update(shape=(3, 3))), (1,)),
    ]


def dying(chip: Gpu) -> list[Program]:
    os.kill(os.getpid(), signal.SIGKILL)
    return []


def nothing(chip: Gpu) -> list[Program]:
    return []


def unrolled(weights: jax.Array, pool: PagedCache, x: jax.Array) -> tuple[PagedCache, jax.Array]:
    for layer in range(LAYERS):
        x = x @ weights
        pool = PagedCache(_write(pool.k, layer, x), _write(pool.v, layer, x))
    return pool, x


def scanned(weights: jax.Array, pool: PagedCache, x: jax.Array) -> tuple[PagedCache, jax.Array]:
    def body(x: jax.Array, layer: PagedCache) -> tuple[jax.Array, PagedCache]:
        x = x @ weights
        return x, PagedCache(_write(layer.k[None], 0, x)[0], _write(layer.v[None], 0, x)[0])

    x, pool = lax.scan(body, x, pool)
    return pool, x


def patched(weights: jax.Array, pool: PagedCache, x: jax.Array) -> tuple[PagedCache, jax.Array]:
    return unrolled(weights.at[0].set(x[0]), pool, x)


def _write(pool: jax.Array, layer: int, x: jax.Array) -> jax.Array:
    """Into the first entry of the first pages of a layer."""
    return pool.at[layer, : x.shape[0], 0].set(x.reshape(x.shape[0], *pool.shape[3:]))
