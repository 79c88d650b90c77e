"""The sum and the norm as one Pallas-Triton kernel, a program a row: the statistics need all of it."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from kernels_pallas.dispatch import Index
from kernels_pallas.triton_shim import load, pallas_call, store

WIDEST, MOST_PARTS = 8192, 64  # what a program keeps in registers, and how often its loop is written out


def refusals(x: jax.Array, parts: jax.Array) -> list[str]:
    """Why the kernel cannot take these shapes on any device."""
    reasons = [f"a width of {x.shape[1]} is more than {WIDEST}"] if x.shape[1] > WIDEST else []
    return reasons + ([f"{len(parts)} parts are more than {MOST_PARTS}"] if parts.shape[0] > MOST_PARTS else [])


def residual_norm(
    x: jax.Array,
    parts: jax.Array,
    bias: jax.Array,
    norm: jax.Array | None,
    *,
    layer: Index,
    norm_layer: Index,
    epsilon: float,
    interpret: bool,
) -> tuple[jax.Array, jax.Array | None]:
    """Shapes and meaning as in `kernels_pallas.residual_norm.api`."""
    width = x.shape[1]
    block = pl.next_power_of_2(width)
    outputs = [jax.ShapeDtypeStruct(x.shape, x.dtype)] * (1 if norm is None else 2)
    call = pallas_call(
        partial(_kernel, block=block, epsilon=epsilon),
        name="residual_norm",
        grid=(x.shape[0],),
        out_shape=outputs,
        warps=max(1, min(16, block // 128)),
        stages=1,
        interpret=interpret,
    )
    # Operands, not constants of the kernel: all layers share one. And not one operand: XLA would compute it.
    normed = () if norm is None else (jnp.full(1, norm_layer, jnp.int32), norm)
    done = call(x, parts, jnp.full(1, layer, jnp.int32), bias.reshape(bias.shape[0], -1, width), *normed)
    return done[0], None if norm is None else done[1]


def _kernel(x_ref: Any, parts_ref: Any, layer_ref: Any, bias_ref: Any, *refs: Any, block: int, epsilon: float) -> None:
    """`refs`: the layer and the norms, if a norm is asked for; the new x, and its norm."""
    norm_refs, out_refs = list(refs[:-2]), list(refs[-2:])
    row, width = pl.program_id(0), x_ref.shape[1]
    columns = lax.iota(jnp.int32, block)
    inside = columns < width
    # Where the width is a power of two there is nothing to mask.
    mask = None if block == width else inside

    def read(ref: Any, *place: Any) -> jax.Array:
        return load(ref.at[(*place, columns)], mask=mask, other=None if mask is None else 0).astype(jnp.float32)

    # All are asked for before one is used.
    parts = [read(parts_ref, part, row) for part in range(parts_ref.shape[0])]
    biases = [read(bias_ref, layer_ref[0], i) for i in range(bias_ref.shape[1])]
    x32 = read(x_ref, row)
    x = (x32 + sum(parts[1:] + biases, start=parts[0])).astype(x_ref.dtype)
    store(out_refs[0].at[row, columns], x, mask=mask)
    if not norm_refs:
        return
    norm_layer_ref, norm_ref = norm_refs
    scale, shift = (read(norm_ref, norm_layer_ref[0], i) for i in range(2))
    rounded = x.astype(jnp.float32)
    centred = rounded - jnp.sum(rounded) / width
    if mask is not None:
        centred = jnp.where(inside, centred, 0.0)
    variance = jnp.sum(centred * centred) / width
    h = centred * lax.rsqrt(variance + epsilon) * scale + shift
    store(out_refs[1].at[row, columns], h.astype(x_ref.dtype), mask=mask)
