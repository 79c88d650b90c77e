"""A matrix with adapters in slots, against the sum written out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxphoton.layers.adapters import AdaptedColumns, AdaptedRows, Pairs
from jaxphoton.layers.weight import Dense, matmul
from jaxphoton.models.adapters import NO_SLOT

ROWS, COLUMNS, SLOTS, RANK = 24, 32, 3, 4
CHOSEN = [2, NO_SLOT, 0]
both = pytest.mark.parametrize("split", ["rows", "columns"])


def adapted(dtype, split: str):
    """A matrix with two pairs side by side, and what it is for each of CHOSEN, float64."""
    random = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(random.standard_normal(shape) / 4, dtype)

    sizes = [(ROWS // 2, COLUMNS)] * 2 if split == "rows" else [(ROWS, COLUMNS // 2)] * 2
    matrix = draw(ROWS, COLUMNS)
    pairs = tuple(Pairs(draw(SLOTS, RANK, columns), draw(rows, SLOTS, RANK)) for rows, columns in sizes)
    form = AdaptedRows if split == "rows" else AdaptedColumns

    def of_slot(slot: int) -> np.ndarray:
        deltas = [np.asarray(p.b, np.float64)[:, slot] @ np.asarray(p.a, np.float64)[slot] for p in pairs]
        delta = np.concatenate(deltas, axis=0 if split == "rows" else 1)
        return np.asarray(matrix, np.float64) + (delta if slot != NO_SLOT else 0)

    return form(Dense(matrix), pairs, jnp.asarray(CHOSEN, jnp.int32)), np.stack([of_slot(slot) for slot in CHOSEN])


@both
@pytest.mark.parametrize("tokens", [1, 7])
@pytest.mark.parametrize(
    ("dtype", "out", "tolerance"), [("float32", None, 1e-5), ("bfloat16", None, 0.04), ("bfloat16", "float32", 0.01)]
)
def test_every_row_has_its_own_matrix(split, tokens, dtype, out, tolerance):
    weight, matrices = adapted(dtype, split)
    x = jax.random.normal(jax.random.key(1), (len(CHOSEN), tokens, COLUMNS), dtype)
    done = jax.jit(matmul, static_argnames="out")(x, weight, out=out)
    assert done.dtype == (out or dtype)
    expected = np.einsum("btd,bfd->btf", np.asarray(x, np.float64), matrices)
    np.testing.assert_allclose(np.asarray(done, np.float64), expected, rtol=tolerance, atol=tolerance)


@both
def test_many_tokens_are_never_held_in_float32_beside_bfloat16(split):
    weight, _ = adapted("bfloat16", split)
    x = jnp.zeros((len(CHOSEN), 7, COLUMNS), jnp.bfloat16)
    values = [value.aval for eqn in jax.make_jaxpr(matmul)(x, weight).eqns for value in eqn.outvars]
    assert not [value for value in values if value.shape[-1:] == (ROWS,) and value.dtype == jnp.float32]
