"""What the kernels of experts share: the check of their arguments, the gate gelu(u) * (g + 1), gelu exact, the sum of
each token's choices, what they refuse, and the way through the columns of matrices in few bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from kernels_pallas.expert_pairs import Pairs
from kernels_pallas.packed import by_place, unpacked, words
from kernels_pallas.products import block

DTYPES = (jnp.bfloat16, jnp.float32)
SCALED_DTYPES = (jnp.float8_e4m3fn, jnp.int8, jnp.int4)
GROUP_SCALES = (jnp.bfloat16, jnp.float32)
MOST_OF_GROUP = 128  # columns of a block


def gated(u: jax.Array, g: jax.Array) -> jax.Array:
    """float32 in, float32 out."""
    return u * (lax.erf(u * jnp.float32(0.5**0.5)) + jnp.float32(1)) * jnp.float32(0.5) * (g + jnp.float32(1))


def combined(lines: jax.Array, experts: jax.Array, weights: jax.Array | None = None) -> jax.Array:
    """The weighted sum of each token's lines, float32 [T, D], for lines [T * k, D] of choices int32 [T, k].

    Those of choices that are not here, and their weights, are selected out: they may be anything.
    """
    each, total = lines.reshape(*experts.shape, -1), jnp.float32(0)
    # Written out: for a sum over an axis of many tokens XLA would find the choices that are here by one more kernel.
    for j in range(experts.shape[1]):
        line = each[:, j].astype(jnp.float32)
        weighted = line if weights is None else line * weights[:, j, None]
        total = total + jnp.where(experts[:, j, None] >= 0, weighted, 0)
    return total


def gated_in_kernel(u: jax.Array, g: jax.Array) -> jax.Array:
    """`gated` without erf, which Pallas-Triton lacks: Abramowitz and Stegun, 7.1.26, right to 1.5e-7."""
    z = jnp.abs(u) * jnp.float32(0.5**0.5)
    t = 1 / (1 + 0.3275911 * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = 1 - series * jnp.exp(-z * z)
    return 0.5 * u * (1 + jnp.where(u < 0, -erf, erf)) * (g + jnp.float32(1))


class Beside(NamedTuple):
    """What stands beside the matrices of experts, as in `kernels_pallas.moe_decode.api`."""

    up_scale: jax.Array | None
    down_scale: jax.Array | None
    up_pairs: Pairs | None
    down_pairs: Pairs | None
    slots: jax.Array | None


@dataclass(frozen=True, slots=True)
class Blocks:
    """How a kernel goes through the columns of a matrix, for few bits in groups of them or whole.

    Attributes:
      columns: of a block; a group is never crossed.
      bits: of a word that `columns` are stored in; 0 where numbers are by themselves.
      of_group: blocks of a group; 0 without groups.
      count: of all.
    """

    columns: int
    bits: int
    of_group: int
    count: int

    @classmethod
    def of(cls, matrix: jax.Array, scale: jax.Array | None, most: int, most_bits: int = 32) -> Blocks:
        """`most` columns at a time, words of at most so many bits."""
        width = matrix.shape[-1]
        if scale is None or scale.ndim < 3:
            columns = block(width, most)
            return cls(columns, 0, 0, width // columns)
        group = width // scale.shape[2]
        columns = block(group, MOST_OF_GROUP)
        bits = min(most_bits, columns // 4) if matrix.dtype == jnp.int4 else 0
        return cls(columns, bits, group // columns, width // columns)

    @property
    def size(self) -> int:
        """Of a block, as it is stored."""
        return self.columns * 4 // self.bits if self.bits else self.columns

    def packed(self, x: jax.Array, matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
        """x [B, K] and matrix [..., K] as the kernel reads them."""
        return (by_place(x, self.bits // 4), words(matrix, self.bits)) if self.bits else (x, matrix)

    def numbers(self, stored: list[jax.Array]) -> Iterator[tuple[tuple[int, ...], tuple[jax.Array, ...]]]:
        """In a kernel: a block of each of some matrices -> (a place, which x begins with, the numbers there)."""
        if not self.bits:
            yield (), tuple(stored)
            return
        for parts in zip(*(unpacked(each, self.bits) for each in stored), strict=True):
            yield parts[0][0], tuple(numbers for _, numbers in parts)

    def factors(self, scale_ref: Any, expert: Any, rows: Any, i: Any) -> jax.Array:
        """In a kernel: those of rows in the group of block i."""
        return scale_ref[expert, rows, lax.div(i, self.of_group)]


@dataclass(frozen=True, slots=True)
class Plan:
    """Static: choices (T * k), of a token (k), experts (E), rows of a block, the way through the columns."""

    choices: int
    top: int
    experts: int
    rows: int
    columns: Blocks


def refusals(up: jax.Array, down: jax.Array, up_scale: jax.Array | None, down_scale: jax.Array | None) -> list[str]:
    """Why no kernel can take matrices of these shapes and dtypes on any device."""
    reasons = [f"{size} rows or columns are not a multiple of 16" for size in down.shape[1:] if size % 16]
    return [*reasons, *_group_refusals(up, up_scale), *_group_refusals(down, down_scale)]


def _group_refusals(matrix: jax.Array, scale: jax.Array | None) -> list[str]:
    if scale is None or scale.ndim < 3:
        return []
    group, least = matrix.shape[2] // scale.shape[2], 32 if matrix.dtype == jnp.int4 else 16
    return [f"groups of {group} columns are not a multiple of {least}"] if group % least else []


def wide(matrix: jax.Array, scale: jax.Array | None) -> jax.Array:
    """[..., N, M] with its factors [..., N] or [..., N, groups], in float32."""
    values = matrix.astype(jnp.float32)
    if scale is None or scale.ndim < matrix.ndim:
        return values if scale is None else values * scale[..., None]
    return (values.reshape(*scale.shape, -1) * scale.astype(jnp.float32)[..., None]).reshape(matrix.shape)


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
            f"up and down must be {x.dtype} like x, float8_e4m3fn, int8 or int4, not {up.dtype} and {down.dtype}"
        )
    if experts.ndim != 2 or experts.shape[0] != x.shape[0] or not experts.shape[1] or experts.dtype != jnp.int32:
        raise ValueError(f"experts must be int32 [{x.shape[0]}, k], not {experts.dtype}{list(experts.shape)}")
    if weights.shape != experts.shape or weights.dtype != jnp.float32:
        raise ValueError(f"weights must be float32{list(experts.shape)}, not {weights.dtype}{list(weights.shape)}")
    for name, scale, matrix in (("up_scale", up_scale, up), ("down_scale", down_scale, down)):
        if fault := _scale_fault(name, scale, matrix):
            raise ValueError(fault)
    _check_pairs(x, up, down, pairs, layer)


def _scale_fault(name: str, scale: jax.Array | None, matrix: jax.Array) -> str | None:
    count, rows, columns = matrix.shape
    if matrix.dtype not in SCALED_DTYPES:
        return None if scale is None else f"scales go with matrices of few bits, these are {matrix.dtype}"
    if scale is not None and scale.ndim == 3:
        each = scale.shape[2]
        if scale.shape[:2] == (count, rows) and each and not columns % each and scale.dtype in GROUP_SCALES:
            return None
        return f"{name} must be [{count}, {rows}, groups of {columns} columns], not {scale.dtype}{list(scale.shape)}"
    if matrix.dtype == jnp.int4:
        return f"int4 matrices need {name} of groups, [{count}, {rows}, groups]"
    if scale is None or scale.shape != (count, rows) or scale.dtype != jnp.float32:
        return f"{matrix.dtype} matrices need {name}, float32{[count, rows]}"
    return None


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
