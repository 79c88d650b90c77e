"""What the kernels of experts share: the check of their arguments, the gate gelu(u) * (g + 1), gelu exact, and pairs of
low rank beside the matrices, of which every token takes those in one slot, or none."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from kernels_pallas.triton_shim import dot, load

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


class Pairs(NamedTuple):
    """The pairs of one matrix of each expert of some layers, in S slots: b @ (a @ x) is added to its product with x."""

    a: jax.Array  # [L, E, S, R, columns]
    b: jax.Array  # [L, E, rows, S, R]
    layer: int

    def here(self) -> tuple[jax.Array, jax.Array]:
        """Those of the layer."""
        return self.a[self.layer], self.b[self.layer]


class Beside(NamedTuple):
    """What stands beside the matrices of experts, as in `kernels_pallas.moe_decode.api`."""

    up_scale: jax.Array | None
    down_scale: jax.Array | None
    up_pairs: Pairs | None
    down_pairs: Pairs | None
    slots: jax.Array | None


def pairs_of(a: jax.Array | None, b: jax.Array | None, layer: int) -> Pairs | None:
    return None if a is None or b is None else Pairs(a, b, layer)


def narrow(pairs: Pairs, experts: jax.Array, slots: jax.Array, x: jax.Array) -> jax.Array:
    """a @ x of each choice, float32 [..., R].

    For experts and slots int32 [...], both of choices, and x that broadcasts to [..., columns]; of a choice without a
    slot it is anything. Written as a sum, which XLA computes where it reads the chosen `a`: for a product it would
    write them down.
    """
    layers, count, each = pairs.a.shape[:3]
    # All layers' in one row: a slice of them would be written down.
    every = pairs.a.reshape(layers * count * each, *pairs.a.shape[3:])
    chosen = every.at[(pairs.layer * count + experts) * each + jnp.maximum(slots, 0)]
    a = chosen.get(mode="promise_in_bounds").astype(jnp.float32)
    return jnp.sum(a * x[..., None, :].astype(jnp.float32), axis=-1)


def widened(pair: tuple[jax.Array, jax.Array], slots: jax.Array, x: jax.Array) -> jax.Array:
    """b @ (a @ x) of one expert's pairs, float32 [N, rows], for slots int32 [N] and x float32 [N, columns]."""
    a, b = (matrix.astype(jnp.float32) for matrix in pair)
    down = jnp.einsum("nd,srd->nsr", x, a, precision="highest")
    own = slots[:, None, None] == lax.iota(jnp.int32, a.shape[0])[None, :, None]
    # Selected, not multiplied: what another's pair makes of this token may overflow.
    return jnp.einsum("nsr,fsr->nf", jnp.where(own, down, 0), b, precision="highest")


@partial(jax.tree_util.register_dataclass, data_fields=("narrow", "b", "slots"), meta_fields=("first",))
@dataclass(frozen=True, slots=True)
class Added:
    """What a kernel adds to its products, as it reads it."""

    narrow: Any  # float32 [T * k, R], a line a line of its input
    b: Any  # [L * E, rows, S * R]
    slots: Any  # int32 [T]
    first: int  # where the layer's experts begin


def added(pairs: Pairs, experts: jax.Array, slots: jax.Array, of_tokens: jax.Array, x: jax.Array) -> Added:
    """For experts int32 [...] of choices, slots int32 [...] of theirs and [T] of tokens, and x as in `narrow`."""
    lines = narrow(pairs, experts, slots, x)
    layers, count, rows = pairs.b.shape[:3]
    b = pairs.b.reshape(layers * count, rows, -1)
    return Added(lines.reshape(-1, lines.shape[-1]), b, of_tokens, pairs.layer * count)


def factors_of(
    add: Added, expert: Any, blocks: tuple[Any, ...], lines: jax.Array, tokens: jax.Array, dtype: Any
) -> tuple[jax.Array, list[jax.Array]]:
    """In a kernel: (x [N, K], b [rows, K] for each block of rows), whose products are to be added.

    Lines int32 [N] are those of `add.narrow`, tokens theirs; tokens behind the last give zeros. Row by row only the
    columns of the token's slot are not zero.
    """
    rank, width = add.narrow.shape[1], add.b.shape[2]
    column = lax.iota(jnp.int32, max(16, pl.next_power_of_2(width)))  # a dot takes no fewer
    inside = tokens < add.slots.shape[0]
    slot = load(add.slots.at[tokens], mask=inside, other=-1)
    own = (slot[:, None] == lax.div(column, rank)[None, :]) & (column < width)[None, :]
    x = load(add.narrow.at[lines[:, None], lax.rem(column, rank)[None, :]], mask=own, other=0).astype(dtype)
    b = []
    for block in blocks:
        rows = block.start + lax.iota(jnp.int32, block.size)
        b.append(
            load(add.b.at[add.first + expert, rows[:, None], column[None, :]], mask=(column < width)[None, :], other=0)
        )
    return x, b


def product(x: jax.Array, y: jax.Array) -> jax.Array:
    """In a kernel: x [N, K] times y [M, K], float32 [N, M]."""
    # Without it float32 would be TF32.
    precision = lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    return dot(x, y, trans_b=True, precision=precision)


def check(
    x: jax.Array,
    up: jax.Array,
    down: jax.Array,
    experts: jax.Array,
    weights: jax.Array,
    up_scale: jax.Array | None,
    down_scale: jax.Array | None,
    pairs: dict[str, jax.Array | None],
    layer: int,
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
    _check_pairs(x, up, down, pairs, layer)


def _check_pairs(x: jax.Array, up: jax.Array, down: jax.Array, pairs: dict[str, jax.Array | None], layer: int) -> None:
    given = {name: array for name, array in pairs.items() if array is not None}
    if not given:
        return
    if missing := [name for name in pairs if name not in given]:
        raise ValueError(f"{', '.join(given)} without {', '.join(missing)}")
    tokens, slots = x.shape[0], given["slots"]
    if slots.shape != (tokens,) or slots.dtype != jnp.int32:
        raise ValueError(f"slots must be int32[{tokens}], not {slots.dtype}{list(slots.shape)}")
    if given["up_a"].ndim != 5:
        raise ValueError(f"up_a must be [L, E, S, R, D], not {list(given['up_a'].shape)}")
    layers, _, each, rank, _ = given["up_a"].shape
    if not 0 <= layer < layers:
        raise ValueError(f"layer must be in 0..{layers - 1}, not {layer}")
    for name, matrix in (("up", up), ("down", down)):
        count, rows, columns = matrix.shape
        for part, shape in (("a", (count, each, rank, columns)), ("b", (count, rows, each, rank))):
            array, shape = given[f"{name}_{part}"], [layers, *shape]
            if [*array.shape] != shape or array.dtype != x.dtype:
                raise ValueError(f"{name}_{part} must be {x.dtype}{shape}, not {array.dtype}{list(array.shape)}")
