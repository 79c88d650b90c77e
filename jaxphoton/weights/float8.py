"""Experts in float8 with one scale a row: kept so, or brought to another type on the device."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxphoton.weights.mapped import WeightsError
from jaxphoton.weights.mapping import Form

EXPERT_SCALES = (".experts.fc1_scale", ".experts.fc2_scale")  # ends of the paths of leaves


def require_float8(form: Form) -> None:
    """Raises WeightsError where there are no float8 experts to keep."""
    if not form.float8_experts:
        raise WeightsError("the weights hold no float8 experts to keep: they are in another type, or there are none")


def dequantise(leaves: dict[str, jax.Array], form: Form, dtype: DTypeLike) -> Form:
    """Brings all float8 experts among the leaves (by dotted path) to `dtype`, one leaf at a time, and drops the scales.

    The product with the scale is rounded once, from float32. Returns the form of what the leaves are then.
    """
    for path in [path for path in leaves if path.endswith(EXPERT_SCALES)]:
        matrix = f"{path.removesuffix('_scale')}_w"
        # Waiting lets go of the float8 leaf before the next one takes memory.
        leaves[matrix] = jax.block_until_ready(_scaled(leaves[matrix], leaves.pop(path), dtype))
    return dataclasses.replace(form, float8_experts=False)


@partial(jax.jit, static_argnums=2)
def _scaled(weights: jax.Array, scale: jax.Array, dtype: DTypeLike) -> jax.Array:
    """weights float8 [E, rows, columns] times scale float32 [E, rows]."""
    return (weights.astype(jnp.float32) * scale[:, :, None]).astype(dtype)
