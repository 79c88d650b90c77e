"""What the kernels of experts share: the check of their arguments, and the gate gelu(u) * (g + 1), gelu exact."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

DTYPES = (jnp.bfloat16, jnp.float32)
SCALED_DTYPES = (jnp.float8_e4m3fn, jnp.int8)


def gated(u: jax.Array, g: jax.Array) -> jax.Array:
    """float32 in, float32 out."""
    return u * (lax.erf(u * jnp.float32(0.5**0.5)) + jnp.float32(1)) * jnp.float32(0.5) * (g + jnp.float32(1))


def gated_in_kernel(u: jax.Array, g: jax.Array) -> jax.Array:
    """`gated` without erf, which Pallas-Triton lacks: Abramowitz and Stegun, 7.1.26, right to 1.5e-7."""
    z = jnp.abs(u) * jnp.float32(0.5**0.5)
    t = 1 / (1 + 0.3275911 * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = 1 - series * jnp.exp(-z * z)
    return 0.5 * u * (1 + jnp.where(u < 0, -erf, erf)) * (g + jnp.float32(1))


def check(
    x: jax.Array,
    up: jax.Array,
    down: jax.Array,
    experts: jax.Array,
    weights: jax.Array,
    up_scale: jax.Array | None,
    down_scale: jax.Array | None,
) -> None:
    """Shapes and dtypes as in `kernels_pallas.moe_decode.api`; a ValueError names what contradicts them."""
    if x.ndim != 2 or 0 in x.shape or x.dtype not in DTYPES:
        raise ValueError(f"x must be [T, D] in bfloat16 or float32, not {x.dtype}{list(x.shape)}")
    if up.ndim != 3 or up.shape[1] % 2 or up.shape[2] != x.shape[1]:
        raise ValueError(f"up must be [E, 2 I, {x.shape[1]}], not {list(up.shape)}")
    count, rows, model = up.shape
    if down.shape != (count, model, rows // 2):
        raise ValueError(f"down must be {[count, model, rows // 2]} beside such an up, not {list(down.shape)}")
    if up.dtype != down.dtype or up.dtype not in (x.dtype, *SCALED_DTYPES):
        raise ValueError(
            f"up and down must be {x.dtype} like x, float8_e4m3fn or int8, not {up.dtype} and {down.dtype}"
        )
    if experts.ndim != 2 or experts.shape[0] != x.shape[0] or not experts.shape[1] or experts.dtype != jnp.int32:
        raise ValueError(f"experts must be int32 [{x.shape[0]}, k], not {experts.dtype}{list(experts.shape)}")
    if weights.shape != experts.shape or weights.dtype != jnp.float32:
        raise ValueError(f"weights must be float32{list(experts.shape)}, not {weights.dtype}{list(weights.shape)}")
    scales = {"up_scale": (up_scale, (count, rows)), "down_scale": (down_scale, (count, model))}
    for name, (scale, shape) in scales.items():
        if up.dtype not in SCALED_DTYPES:
            if scale is not None:
                raise ValueError(f"scales go with 8-bit matrices, these are {up.dtype}")
        elif scale is None or scale.shape != shape or scale.dtype != jnp.float32:
            raise ValueError(f"{up.dtype} matrices need {name}, float32{list(shape)}")
