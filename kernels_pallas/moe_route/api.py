"""The public function: checks what it is given and chooses how to compute it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels_pallas.dispatch import Index, Target, choose, outside
from kernels_pallas.moe_route import reference, triton

DTYPES = (jnp.bfloat16, jnp.float32)


def moe_route(
    x: jax.Array,
    router: jax.Array,
    bias: jax.Array,
    *,
    top: int,
    row: Index = 0,
    backend: str | None = None,
    target: Target | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The `top` experts of each token by logits router @ x[t] + bias[row], accumulated in float32.

    Args:
      x: [T, D] (tokens, model), bfloat16 or float32.
      router: [E, D] in x's dtype.
      bias: [R, E] in x's dtype: of R layers, of which `row` is meant; a slice would be copied for a kernel.
      backend: one of `kernels_pallas.dispatch.BACKENDS`; None chooses.
      target: the device compiled for; None for jax's default device.

    Returns:
      (logits float32 [T, E]; experts int32 [T, top], the best first and of equals the first, NaN counting as best;
      weights float32 [T, top], the softmax over their logits alone).

    Raises:
      ValueError: shapes or dtypes that contradict the above.
      KernelUnavailable: the backend asked for cannot compute this here.
    """
    if x.ndim != 2 or 0 in x.shape or x.dtype not in DTYPES:
        raise ValueError(f"x must be [T, D] in bfloat16 or float32, not {x.dtype}{list(x.shape)}")
    if router.ndim != 2 or router.shape[1] != x.shape[1] or router.dtype != x.dtype:
        raise ValueError(f"router must be {x.dtype}[E, {x.shape[1]}], not {router.dtype}{list(router.shape)}")
    if bias.ndim != 2 or bias.shape[1] != router.shape[0] or bias.dtype != x.dtype:
        raise ValueError(f"bias must be {x.dtype}[R, {router.shape[0]}], not {bias.dtype}{list(bias.shape)}")
    if outside(row, bias.shape[0]):
        raise ValueError(f"row must be in 0..{bias.shape[0] - 1}, not {row}")
    if not 1 <= top <= router.shape[0]:
        raise ValueError(f"top must be in 1..{router.shape[0]}, not {top}")
    target = target or Target.of(jax.devices()[0])
    chosen = choose("moe_route", backend, target, triton.refusals(router))
    if chosen == "reference":
        return reference.moe_route(x, router, bias, top=top, row=row)
    return triton.moe_route(x, router, bias, top=top, row=row, cores=target.cores, interpret=chosen == "interpret")
