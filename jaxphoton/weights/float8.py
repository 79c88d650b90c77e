"""Experts in float8 with one scale a row: kept so, or brought to another type on the device."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxphoton.weights.mapped import WeightsError
from jaxphoton.weights.mapping import Form


def require_float8(form: Form) -> None:
    """Raises WeightsError where there are no float8 experts to keep."""
    if not form.float8_experts:
        raise WeightsError("the weights hold no float8 experts to keep: they are in another type, or there are none")


def dequantise(leaves: dict[str, jax.Array], form: Form, dtype: DTypeLike) -> Form:
    """Brings all float8 experts among the leaves (by dotted path) to `dtype`, one leaf at a time, and drops the scales.

    The product with the scale is rounded once, from float32. Returns the form of what the leaves are then.
    """
    for path in [path for path in leaves if path.endswith(".experts.scale")]:
        experts = path.removesuffix("scale")
        scale = leaves.pop(path)
        for name, first in (("fc1_w", True), ("fc2_w", False)):
            # Waiting lets go of the float8 leaf before the next one takes memory.
            leaves[experts + name] = jax.block_until_ready(_scaled(leaves[experts + name], scale, first, dtype))
    return dataclasses.replace(form, float8_experts=False)


@partial(jax.jit, static_argnums=(2, 3))
def _scaled(weights: jax.Array, scale: jax.Array, first: bool, dtype: DTypeLike) -> jax.Array:
    """weights float8 [E, rows, columns] times the first or the last `rows` of scale float32 [E, all rows]."""
    rows = weights.shape[1]
    own = scale[:, :rows] if first else scale[:, -rows:]
    return (weights.astype(jnp.float32) * own[:, :, None]).astype(dtype)
