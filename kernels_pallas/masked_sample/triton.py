"""Sampling as two Pallas-Triton kernels: `scan`, a program a block of a row, then `settle`, a program a row.

No threshold of the top-p set is searched. The best entry of the whole row is the best of the set if it lies in it,
which one sum over the entries before it decides. If it does not, neither does any entry behind it, and the best of
those before it is tried next. With the same noise this is the choice of the reference, after about 1 - ln(top_p)
sums, each over the blocks alone that hold an entry before the one on trial.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from kernels_pallas.masked_sample import threefry
from kernels_pallas.masked_sample.reference import GREEDY_BELOW
from kernels_pallas.triton_shim import load, pallas_call

BLOCK = 2048
WARPS = 8
_LARGEST = 2**31 - 1

# Columns of the settings, int32 [B, 6]: one operand, hence one fusion, for all that a row brings.
TEMPERATURE, TOP_P, SEED, INDEX, STATE, NEEDED = range(6)
# What `scan` finds in a block, float32 [B, 4, blocks]: its largest logit; the sums of exp(logit - largest) at
# temperature 1 and at the row's; the best score, counted from its largest logit.
PEAK, MASS_AT_1, MASS, SCORE = range(4)


def refusals(logits: jax.Array) -> list[str]:
    """Why the kernels cannot take these logits; empty if they can."""
    found = []
    if logits.dtype != jnp.float32:
        found.append(f"logits are {logits.dtype}, not float32")
    if logits.shape[0] * (logits.shape[1] + BLOCK) > _LARGEST:
        found.append(f"{logits.size} logits are more than 32 bits can number")
    return found


def masked_sample(
    logits: jax.Array,
    temperature: jax.Array,
    top_p: jax.Array,
    seed: jax.Array,
    index: jax.Array,
    *,
    stream: int,
    table: jax.Array | None,
    state: jax.Array | None,
    mask: jax.Array | None,
    needed: jax.Array,
    interpret: bool,
) -> tuple[jax.Array, jax.Array]:
    """See `api.masked_sample`."""
    rows, columns = logits.shape
    block = min(BLOCK, pl.next_power_of_2(columns))
    blocks = pl.cdiv(columns, block)
    width = blocks * block
    words = [_widen(array, pl.cdiv(width, 32)) for array in (table, mask) if array is not None]
    settings = _settings(temperature, top_p, seed, index, state, needed)
    plan = _Plan(columns, block, blocks, table is not None, mask is not None)
    call = partial(pallas_call, warps=WARPS, stages=1, interpret=interpret)
    scan = call(
        partial(_scan, plan, stream),
        name="masked_sample_scan",
        grid=(rows, blocks),
        out_shape=(
            jax.ShapeDtypeStruct((rows, 4, blocks), jnp.float32),
            jax.ShapeDtypeStruct((rows, blocks), jnp.int32),
            jax.ShapeDtypeStruct((rows, width), jnp.float32),
        ),
    )
    settle = call(
        partial(_settle, plan),
        name="masked_sample_settle",
        grid=(rows,),
        out_shape=(jax.ShapeDtypeStruct((rows,), jnp.int32), jax.ShapeDtypeStruct((rows,), jnp.float32)),
    )
    return settle(settings, logits, *words, *scan(settings, logits, *words))


def _widen(array: jax.Array, width: int) -> jax.Array:
    missing = width - array.shape[1]
    return jnp.pad(array, ((0, 0), (0, missing))) if missing else array


def _settings(temperature, top_p, seed, index, state, needed) -> jax.Array:
    bits = [lax.bitcast_convert_type(array, jnp.int32) for array in (temperature, top_p, seed)]
    return jnp.stack([*bits, index, jnp.zeros_like(index) if state is None else state, needed.astype(jnp.int32)], 1)


class _Plan(NamedTuple):
    """How rows are cut, and which bits restrict them."""

    columns: int
    block: int
    blocks: int
    table: bool
    mask: bool


class _Row(NamedTuple):
    """The settings of row `number`; `temperature` is 1 where it is greedy, `cut` says whether top-p applies."""

    number: Any
    temperature: Any
    top_p: Any
    seed: Any
    index: Any
    state: Any
    needed: Any
    greedy: Any
    cut: Any

    @classmethod
    def read(cls, settings: Any, number: Any) -> _Row:
        temperature = lax.bitcast_convert_type(settings[number, TEMPERATURE], jnp.float32)
        top_p = lax.bitcast_convert_type(settings[number, TOP_P], jnp.float32)
        seed = lax.bitcast_convert_type(settings[number, SEED], jnp.uint32)
        greedy = temperature <= GREEDY_BELOW
        return cls(
            number,
            jnp.where(greedy, 1.0, temperature),
            top_p,
            seed,
            settings[number, INDEX],
            settings[number, STATE],
            settings[number, NEEDED] != 0,
            greedy,
            ~greedy & (top_p < 1),
        )


def _scan(plan: _Plan, stream: int, settings: Any, logits: Any, *refs: Any) -> None:
    """Writes what is known of a block, the column of its best score, and, where top-p applies, all its scores."""
    *words, known, best_columns, scores = refs
    row, j = _Row.read(settings, pl.program_id(0)), pl.program_id(1)

    @pl.when(row.needed)
    def _() -> None:
        values, column = _block(plan, row, j, logits, words)
        peak = jnp.max(values)
        floor = _finite(peak)
        scaled = (values - floor) / row.temperature
        noise = lax.cond(
            row.greedy,
            lambda: jnp.zeros_like(scaled),
            lambda: threefry.gumbel(row.seed, row.index, stream, column.astype(jnp.uint32)),
        )
        score = scaled + noise
        best = jnp.max(score)
        known[row.number, PEAK, j] = peak
        known[row.number, MASS_AT_1, j] = jnp.sum(jnp.exp(values - floor))
        known[row.number, MASS, j] = jnp.sum(jnp.exp(scaled))
        known[row.number, SCORE, j] = best
        best_columns[row.number, j] = _first(score == best, column)

        @pl.when(row.cut)
        def _() -> None:
            scores[row.number, pl.ds(j * plan.block, plan.block)] = score


def _settle(plan: _Plan, settings: Any, logits: Any, *refs: Any) -> None:
    """Writes a row's entry and its log-probability."""
    *words, known, best_columns, scores, tokens, logprobs = refs
    row = _Row.read(settings, pl.program_id(0))
    tokens[row.number] = jnp.int32(0)
    logprobs[row.number] = jnp.float32(0)

    @pl.when(row.needed)
    def _() -> None:
        slot = jnp.arange(pl.next_power_of_2(plan.blocks), dtype=jnp.int32)
        at = jnp.minimum(slot, plan.blocks - 1)
        peaks = jnp.where(slot < plan.blocks, known[row.number, PEAK, at], -jnp.inf)
        peak = jnp.max(peaks)
        floor = _finite(peak)
        lift = (peaks - floor) / row.temperature
        score = known[row.number, SCORE, at] + lift
        token = _first(score == jnp.max(score), best_columns[row.number, at])
        token = jnp.minimum(token, plan.columns - 1)  # beyond them only if logits are NaN
        limit = jnp.maximum(row.top_p, 0.0) * jnp.sum(known[row.number, MASS, at] * jnp.exp(lift))

        def retry(carry: tuple[Any, Any]) -> tuple[Any, Any]:
            token, _ = carry
            before, other = _before(plan, row, floor, token, logits, words, known, scores)
            out = before > limit
            return jnp.where(out, other, token), out

        token, _ = lax.while_loop(lambda carry: carry[1], retry, (token, row.cut))
        total = jnp.sum(known[row.number, MASS_AT_1, at] * jnp.exp(peaks - floor))
        logprob = logits[row.number, token] - floor - jnp.log(total)
        tokens[row.number] = token
        logprobs[row.number] = jnp.where(peak == -jnp.inf, jnp.nan, logprob)


def _before(
    plan: _Plan, row: _Row, floor: Any, token: Any, logits: Any, words: Any, known: Any, scores: Any
) -> tuple[Any, Any]:
    """The mass of the entries before `token`, in descending order with ties by index, and the best of them."""
    value = logits[row.number, token]

    def look(j: Any, carry: tuple[Any, ...]) -> tuple[Any, ...]:
        mass, tied, best, where = carry
        values, column = _block(plan, row, j, logits, words)
        above, equal = values > value, (values == value) & (column < token)
        lift = (known[row.number, PEAK, j] - floor) / row.temperature
        score = scores[row.number, pl.ds(j * plan.block, plan.block)] + lift
        better = (above | equal) & (score > best)
        return (
            mass + jnp.where(above, jnp.exp((values - floor) / row.temperature), 0.0),
            tied + equal.astype(jnp.int32),
            jnp.where(better, score, best),
            jnp.where(better, column, where),
        )

    def visit(j: Any, carry: tuple[Any, ...]) -> tuple[Any, ...]:
        return lax.cond(known[row.number, PEAK, j] >= value, partial(look, j), lambda carry: carry, carry)

    zeros = jnp.zeros(plan.block, jnp.float32)
    none = jnp.zeros(plan.block, jnp.int32)
    mass, tied, best, where = lax.fori_loop(0, plan.blocks, visit, (zeros, none, zeros - jnp.inf, none))
    ties = jnp.sum(tied).astype(jnp.float32) * jnp.exp((value - floor) / row.temperature)
    return jnp.sum(mass) + ties, _first(best == jnp.max(best), where)


def _block(plan: _Plan, row: _Row, j: Any, logits: Any, words: Any) -> tuple[Any, Any]:
    """Logits of block `j`, -inf where forbidden or behind the last, and their columns; both [block]."""
    column = j * plan.block + jnp.arange(plan.block, dtype=jnp.int32)
    if plan.columns % plan.block:  # padded, logits would be copied
        values = load(logits.at[row.number, column], mask=column < plan.columns, other=-jnp.inf)
    else:
        values = logits[row.number, pl.ds(j * plan.block, plan.block)]
    lines = [row.state] * plan.table + [row.number] * plan.mask
    for packed, line in zip(words, lines, strict=True):
        word = packed[line, column >> 5]
        allowed = (word >> (column & 31).astype(jnp.uint32)) & jnp.uint32(1)
        values = jnp.where(allowed != 0, values, -jnp.inf)
    return values, column


def _finite(peak: Any) -> Any:
    return jnp.where(peak == -jnp.inf, 0.0, peak)


def _first(found: Any, column: Any) -> Any:
    """The smallest column where `found`."""
    return jnp.min(jnp.where(found, column, _LARGEST))
