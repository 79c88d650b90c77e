"""Sampling as three Pallas-Triton kernels: `scan` and `trial`, a program a block of a row, then `settle`, one a row.

No threshold of the top-p set is searched. The best entry of the whole row is the best of the set if it lies in it,
which one sum over the entries before it decides: `trial`. If it does not, neither does any entry behind it, and the
best of those before it is tried next, in `settle`. With the same noise this is the choice of the reference, after about
1 - ln(top_p) sums, each over the blocks alone that hold an entry before the one on trial. Noise is computed again for
those: kept, it would be as large as the logits.
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
TEMPERATURE, TOP_P, SEED, COUNTER, STATE, NEEDED = range(6)
# What `scan` finds in a block, float32 [B, 4, blocks]: its largest logit; the sums of exp(logit - largest) at
# temperature 1 and at the row's; the best score, counted from its largest logit.
PEAK, MASS_AT_1, MASS, SCORE = range(4)
# What `trial` finds in a block that may hold entries before the one on trial, float32 [B, 2, blocks]: the sum of their
# exp(logit - the row's largest) at the row's temperature, and their best score, counted from the row's largest.
BEFORE, NEXT = range(2)


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
    stream: int | jax.Array,
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
    words = [_widen(array, pl.cdiv(blocks * block, 32)) for array in (table, mask) if array is not None]
    settings = _settings(temperature, top_p, seed, threefry.counter(index, stream), state, needed)
    plan = _Plan(columns, block, blocks, table is not None, mask is not None)
    call = partial(pallas_call, warps=WARPS, stages=1, interpret=interpret)
    columns_of_blocks = jax.ShapeDtypeStruct((rows, blocks), jnp.int32)
    scan = call(
        partial(_scan, plan),
        name="masked_sample_scan",
        grid=(rows, blocks),
        out_shape=(jax.ShapeDtypeStruct((rows, 4, blocks), jnp.float32), columns_of_blocks),
    )
    trial = call(
        partial(_trial, plan),
        name="masked_sample_trial",
        grid=(rows, blocks),
        out_shape=(jax.ShapeDtypeStruct((rows, 2, blocks), jnp.float32), columns_of_blocks),
    )
    settle = call(
        partial(_settle, plan),
        name="masked_sample_settle",
        grid=(rows,),
        out_shape=(jax.ShapeDtypeStruct((rows,), jnp.int32), jax.ShapeDtypeStruct((rows,), jnp.float32)),
    )
    found = scan(settings, logits, *words)
    return settle(settings, logits, *words, *found, *trial(settings, logits, *words, *found))


def _widen(array: jax.Array, width: int) -> jax.Array:
    missing = width - array.shape[1]
    return jnp.pad(array, ((0, 0), (0, missing))) if missing else array


def _settings(temperature, top_p, seed, counter, state, needed) -> jax.Array:
    bits = [lax.bitcast_convert_type(array, jnp.int32) for array in (temperature, top_p, seed, counter)]
    needed = needed.astype(jnp.int32)
    return jnp.stack([*bits, jnp.zeros_like(needed) if state is None else state, needed], 1)


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
    counter: Any
    state: Any
    needed: Any
    greedy: Any
    cut: Any

    @classmethod
    def read(cls, settings: Any, number: Any) -> _Row:
        temperature = lax.bitcast_convert_type(settings[number, TEMPERATURE], jnp.float32)
        top_p = lax.bitcast_convert_type(settings[number, TOP_P], jnp.float32)
        seed, counter = (lax.bitcast_convert_type(settings[number, one], jnp.uint32) for one in (SEED, COUNTER))
        greedy = temperature <= GREEDY_BELOW
        return cls(
            number,
            jnp.where(greedy, 1.0, temperature),
            top_p,
            seed,
            counter,
            settings[number, STATE],
            settings[number, NEEDED] != 0,
            greedy,
            ~greedy & (top_p < 1),
        )


def _scan(plan: _Plan, settings: Any, logits: Any, *refs: Any) -> None:
    """Writes what is known of a block, and the column of its best score."""
    *words, known, best_columns = refs
    row, j = _Row.read(settings, pl.program_id(0)), pl.program_id(1)

    @pl.when(row.needed)
    def _() -> None:
        values, column = _block(plan, row, j, logits, words)
        peak = jnp.max(values)
        floor = _finite(peak)
        scaled = (values - floor) / row.temperature
        noise = lax.cond(row.greedy, lambda: jnp.zeros_like(scaled), lambda: _noise(row, column))
        score = scaled + noise
        best = jnp.max(score)
        known[row.number, PEAK, j] = peak
        known[row.number, MASS_AT_1, j] = jnp.sum(jnp.exp(values - floor))
        known[row.number, MASS, j] = jnp.sum(jnp.exp(scaled))
        known[row.number, SCORE, j] = best
        best_columns[row.number, j] = _first(score == best, column)


def _trial(plan: _Plan, settings: Any, logits: Any, *refs: Any) -> None:
    """Writes what lies in a block before the best entry of its row, where top-p applies."""
    *words, known, best_columns, before, next_columns = refs
    row, j = _Row.read(settings, pl.program_id(0)), pl.program_id(1)

    @pl.when(row.needed & row.cut)
    def _() -> None:
        seen = _Seen.read(plan, row, known, best_columns)
        value = logits[row.number, seen.token]

        @pl.when(known[row.number, PEAK, j] >= value)
        def _() -> None:
            mass, score, column = _before(plan, row, j, seen.floor, seen.token, value, logits, words)
            before[row.number, BEFORE, j] = mass
            before[row.number, NEXT, j] = score
            next_columns[row.number, j] = column


def _settle(plan: _Plan, settings: Any, logits: Any, *refs: Any) -> None:
    """Writes a row's entry and its log-probability."""
    *words, known, best_columns, before, next_columns, tokens, logprobs = refs
    row = _Row.read(settings, pl.program_id(0))
    tokens[row.number] = jnp.int32(0)
    logprobs[row.number] = jnp.float32(0)

    @pl.when(row.needed)
    def _() -> None:
        seen = _Seen.read(plan, row, known, best_columns)
        # Without top-p there is no second: `cut` is False then, and a constant in its place does not lower.
        first = lax.cond(
            row.cut,
            lambda: _tried(plan, row, seen, logits, before, next_columns),
            lambda: (seen.token, row.cut),
        )
        again = partial(_tried_again, plan, row, seen, logits, words, known)
        token, _ = lax.while_loop(lambda drawn: drawn[1], lambda drawn: again(drawn[0]), first)
        logprob = logits[row.number, token] - seen.floor - jnp.log(seen.total)
        tokens[row.number] = token
        logprobs[row.number] = jnp.where(seen.peak == -jnp.inf, jnp.nan, logprob)


def _tried(
    plan: _Plan, row: _Row, seen: _Seen, logits: Any, before: Any, next_columns: Any
) -> tuple[jax.Array, jax.Array]:
    """What is drawn after `trial`, or is to be tried next; and whether it is."""
    _, at = _slots(plan)
    written = seen.peaks >= logits[row.number, seen.token]
    mass = jnp.sum(jnp.where(written, before[row.number, BEFORE, at], 0.0))
    score = jnp.where(written, before[row.number, NEXT, at], -jnp.inf)
    out = mass > seen.limit
    return jnp.where(out, _first(score == jnp.max(score), next_columns[row.number, at]), seen.token), out


def _tried_again(
    plan: _Plan, row: _Row, seen: _Seen, logits: Any, words: Any, known: Any, token: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The same after another trial, of `token`, by this program alone."""
    value = logits[row.number, token]

    def add(j: Any, sums: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        mass, best, where = sums
        more, score, column = _before(plan, row, j, seen.floor, token, value, logits, words)
        return mass + more, jnp.maximum(score, best), jnp.where(score > best, column, where)

    def visit(j: Any, sums: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        return lax.cond(known[row.number, PEAK, j] >= value, partial(add, j), lambda sums: sums, sums)

    nothing = jnp.float32(0), jnp.float32(-jnp.inf), jnp.int32(0)
    mass, _, other = lax.fori_loop(0, plan.blocks, visit, nothing)
    out = mass > seen.limit
    return jnp.where(out, other, token), out


class _Seen(NamedTuple):
    """A whole row after `scan`.

    Attributes:
      peaks: the largest logit of every block, -inf behind the last.
      peak, floor: its largest logit, and what is subtracted from logits: the same, or 0 where nothing is allowed.
      token: the column of its best score.
      limit: the mass that may lie before what is drawn.
      total: the sum of exp(logit - floor).
    """

    peaks: Any
    peak: Any
    floor: Any
    token: Any
    limit: Any
    total: Any

    @classmethod
    def read(cls, plan: _Plan, row: _Row, known: Any, best_columns: Any) -> _Seen:
        slot, at = _slots(plan)
        peaks = jnp.where(slot < plan.blocks, known[row.number, PEAK, at], -jnp.inf)
        peak = jnp.max(peaks)
        floor = _finite(peak)
        lift = (peaks - floor) / row.temperature
        score = known[row.number, SCORE, at] + lift
        token = _first(score == jnp.max(score), best_columns[row.number, at])
        return cls(
            peaks,
            peak,
            floor,
            jnp.minimum(token, plan.columns - 1),  # beyond them only if logits are NaN
            jnp.maximum(row.top_p, 0.0) * jnp.sum(known[row.number, MASS, at] * jnp.exp(lift)),
            jnp.sum(known[row.number, MASS_AT_1, at] * jnp.exp(peaks - floor)),
        )


def _slots(plan: _Plan) -> tuple[Any, Any]:
    """Numbers up to a power of two, and the blocks read for them: the last one for those behind it."""
    slot = jnp.arange(pl.next_power_of_2(plan.blocks), dtype=jnp.int32)
    return slot, jnp.minimum(slot, plan.blocks - 1)


def _before(
    plan: _Plan, row: _Row, j: Any, floor: Any, token: Any, value: Any, logits: Any, words: Any
) -> tuple[Any, Any, Any]:
    """Of the entries of block `j` before `token`, whose logit is `value`, in descending order with ties by index: their
    mass, the best score, and its column."""
    values, column = _block(plan, row, j, logits, words)
    ahead = (values > value) | ((values == value) & (column < token))
    scaled = (values - floor) / row.temperature
    score = jnp.where(ahead, scaled + _noise(row, column), -jnp.inf)
    best = jnp.max(score)
    return jnp.sum(jnp.where(ahead, jnp.exp(scaled), 0.0)), best, _first(score == best, column)


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


def _noise(row: _Row, column: Any) -> Any:
    return threefry.gumbel(row.seed, row.counter, column.astype(jnp.uint32))


def _finite(peak: Any) -> Any:
    return jnp.where(peak == -jnp.inf, 0.0, peak)


def _first(found: Any, column: Any) -> Any:
    """The smallest column where `found`."""
    return jnp.min(jnp.where(found, column, _LARGEST))
