"""The experts of many tokens as three Pallas-Triton kernels: order, up and down; XLA sums each token's experts.

`order` sorts the choices by expert, without padding, those that are not here last. A program of the others takes a few
rows of one expert's matrix and up to TOKENS of its choices: a tile never crosses an expert. It reads its rows of the
matrix once and gathers its tokens itself. How many programs there are is static, enough for any routing; each finds its
expert from where the experts' choices begin, and those that find none end at once. Lines of choices that are not here
are never written, and the sum does not look at them.

The matrix stands on the left of every dot, tokens on the right: there the tensor cores of Hopper take as few as there
are, while the left side has at least 64 rows. A tile of fewer choices than TOKENS computes the next multiple of STEP.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from kernels_pallas.expert_pairs import Added, added, factors_of, product
from kernels_pallas.experts import Beside, Blocks, Plan, combined, gated_in_kernel
from kernels_pallas.products import block
from kernels_pallas.triton_shim import load, pallas_call, store

STEP = 32
# By how many steps its choices fill, the widths of a tile's dots: powers of two.
WIDTHS = ((32,), (64,), (64, 32), (128,))
TOKENS = STEP * len(WIDTHS)  # an even routing of 730 tokens gives an expert of Moondream 3 91 of them
# Rows of a matrix (in the up kernel half of them of u, half of g), and bytes of a token at a time.
ROWS, BYTES = 128, 128
# Bits of a word of int4. Words of 32 make twice as many dots, and twice the time to compile; those of 16 spill
# registers on chips before the H100.
WORD, WORD_BEFORE_90 = 16, 32
WARPS = 8
STAGES = 3  # more do not fit into the shared memory of an L40S
CHUNK = 1024  # choices that `order` looks at together


def word_of(capability: int | None) -> int:
    """Bits of the words of int4, by compute capability times ten."""
    return WORD_BEFORE_90 if capability is not None and capability < 90 else WORD


def tiles(choices: int, experts: int) -> int:
    """The most tiles that any routing of so many choices makes: an expert's last one may have a single choice."""
    used = min(choices, experts)
    return used + (choices - used) // TOKENS


def computed(sizes: Any) -> int:
    """Choices that the dots compute, for the numbers of choices of all experts."""
    return sum(-(-int(size) // STEP) * STEP for size in sizes)


def most_computed(choices: int, experts: int) -> int:
    """`computed` of the worst routing."""
    used = min(choices, experts)
    return (used + (choices - used) // STEP) * STEP


def moe_prefill(
    x: jax.Array,
    up: jax.Array,
    down: jax.Array,
    experts: jax.Array,
    weights: jax.Array,
    beside: Beside,
    *,
    word: int,
    interpret: bool,
) -> jax.Array:
    """Shapes and meaning as in `kernels_pallas.moe_decode.api`; `word` as `word_of` says."""
    order, starts = _sorted(experts.reshape(-1), up.shape[0], interpret)
    up_add = down_add = None
    slots = beside.slots
    if beside.up_pairs is not None and slots is not None:
        up_add = added(beside.up_pairs, experts, slots[:, None], slots, x[:, None])
    call = partial(_call, order, starts, experts.shape[1], word=word, interpret=interpret)
    hidden = call(_up, "moe_prefill_up", x, None, up, beside.up_scale, up_add, size=down.shape[2])
    if beside.down_pairs is not None and slots is not None:
        # Lines of `hidden` are in the order of `order`.
        places = (experts.reshape(-1)[order], slots[order // experts.shape[1]])
        down_add = added(beside.down_pairs, *places, slots, hidden)
    inputs = (hidden, weights.reshape(-1), down, beside.down_scale, down_add)
    results = call(_down, "moe_prefill_down", *inputs, size=x.shape[1])
    return combined(results, experts).astype(x.dtype)


def _sorted(experts: jax.Array, count: int, interpret: bool) -> tuple[jax.Array, jax.Array]:
    """Choices int32 [T * k] by expert and, of equals, by number; and where each expert's begin, int32 [E + 1].

    Those of the last number, E, are not here.
    """
    run = pallas_call(
        _order,
        name="moe_prefill_order",
        grid=(count + 1,),
        out_shape=(jax.ShapeDtypeStruct(experts.shape, jnp.int32), jax.ShapeDtypeStruct((count + 1,), jnp.int32)),
        warps=4,
        stages=1,
        interpret=interpret,
    )
    return run(experts)


def _order(experts_ref: Any, order_ref: Any, starts_ref: Any) -> None:
    """Writes one expert's choices behind those of all lower experts.

    Choices that are not here have places too: a tile reads behind the end of its expert's.
    """
    expert, count, absent = pl.program_id(0), experts_ref.shape[0], starts_ref.shape[0] - 1
    chunk = min(CHUNK, pl.next_power_of_2(count))

    def look(i: Any) -> tuple[jax.Array, jax.Array]:
        number = i * chunk + lax.iota(jnp.int32, chunk)
        # What is behind the last choice is of no expert.
        chosen = load(experts_ref.at[number], mask=number < count, other=2**30)
        return number, jnp.where(chosen < 0, absent, chosen)

    def earlier(i: Any, total: jax.Array) -> jax.Array:
        return total + jnp.sum((look(i)[1] < expert).astype(jnp.int32))

    def write(i: Any, place: jax.Array) -> jax.Array:
        number, chosen = look(i)
        mine = (chosen == expert).astype(jnp.int32)
        # The others have places of their own, outside: the interpreter writes back what it finds at a masked place.
        places = jnp.where(mine > 0, place + jnp.cumsum(mine) - 1, count)
        store(order_ref.at[places], number, mask=mine > 0)
        return place + jnp.sum(mine)

    chunks = -(-count // chunk)
    start = lax.fori_loop(0, chunks, earlier, jnp.int32(0))
    starts_ref[expert] = start
    lax.fori_loop(0, chunks, write, start)


def _call(
    order: jax.Array,
    starts: jax.Array,
    top: int,
    kernel: Callable[..., None],
    name: str,
    inputs: jax.Array,
    weights: jax.Array | None,
    matrices: jax.Array,
    scale: jax.Array | None,
    add: Added | None,
    *,
    size: int,
    word: int,
    interpret: bool,
) -> jax.Array:
    """One kernel: [T * k, size] in the dtype of its inputs."""
    dtype = inputs.dtype
    rows = block(size, ROWS // (2 if kernel is _up else 1))
    columns = Blocks.of(matrices, scale, BYTES // dtype.itemsize, word)
    plan = Plan(order.size, top, matrices.shape[0], rows, columns)
    inputs, matrices = columns.packed(inputs, matrices)
    run = pallas_call(
        partial(kernel, plan),
        name=name,
        grid=(size // rows, tiles(plan.choices, plan.experts)),
        out_shape=jax.ShapeDtypeStruct((order.size, size), dtype),
        warps=WARPS,
        stages=STAGES,
        interpret=interpret,
    )
    return run(order, starts, inputs, weights, matrices, scale, add)


def _up(plan: Plan, order_ref, starts_ref, x_ref, _, up_ref, scale_ref, add: Added | None, out_ref) -> None:
    """Writes a block of gelu(u) * (g + 1), a line a choice in the order of `order`."""
    first = pl.program_id(0) * plan.rows
    u_rows, g_rows = (pl.ds(start, plan.rows) for start in (first, up_ref.shape[1] // 2 + first))

    def tile(expert: Any, begin: Any, end: Any, widths: tuple[int, ...]) -> None:
        # Places behind the end compute what another choice does, and are not written.
        places = _places(begin, widths)
        choices = [order_ref[jnp.minimum(place, plan.choices - 1)] for place in places]
        tokens = [lax.div(choice, plan.top) for choice in choices]
        products = _products(plan, up_ref, scale_ref, expert, (u_rows, g_rows), x_ref, tokens)
        for place, choice, token, (u, g) in zip(places, choices, tokens, products, strict=True):
            if add is not None:
                x, (of_u, of_g) = factors_of(add, expert, (u_rows, g_rows), choice, token, x_ref.dtype)
                u, g = u + product(of_u, x), g + product(of_g, x)
            _write(out_ref, jnp.where(place < end, place, plan.choices), first, gated_in_kernel(u, g))

    _for_tile(plan, starts_ref, tile)


def _down(
    plan: Plan, order_ref, starts_ref, hidden_ref, weights_ref, down_ref, scale_ref, add: Added | None, out_ref
) -> None:
    """Writes a block of the weighted results, a line a choice in the choices' own order."""
    first = pl.program_id(0) * plan.rows
    rows = pl.ds(first, plan.rows)

    def tile(expert: Any, begin: Any, end: Any, widths: tuple[int, ...]) -> None:
        places = _places(begin, widths)
        lines = [jnp.minimum(place, plan.choices - 1) for place in places]
        products = _products(plan, down_ref, scale_ref, expert, (rows,), hidden_ref, lines)
        for place, line, (result,) in zip(places, lines, products, strict=True):
            choice = order_ref[line]
            if add is not None:
                x, (of_rows,) = factors_of(add, expert, (rows,), line, lax.div(choice, plan.top), hidden_ref.dtype)
                result = result + product(of_rows, x)
            weighted = result * weights_ref[choice][None, :]
            _write(out_ref, jnp.where(place < end, choice, plan.choices), first, weighted)

    _for_tile(plan, starts_ref, tile)


def _for_tile(plan: Plan, starts_ref: Any, tile: Callable[[Any, Any, Any, tuple[int, ...]], None]) -> None:
    """Calls tile(expert, first place, end of the expert's places, widths) with the program's share, if it has one."""
    number = pl.program_id(1)
    expert = lax.iota(jnp.int32, pl.next_power_of_2(plan.experts))
    # Experts behind the last have no choices: they begin and end where those begin that are not here.
    begins, ends = (starts_ref[jnp.minimum(index, plan.experts)] for index in (expert, expert + 1))
    each = lax.div(ends - begins + (TOKENS - 1), TOKENS)
    through = jnp.cumsum(each)  # tiles up to and with an expert
    mine = (through > number) & (through - each <= number)
    chosen, before, begin, end = (
        jnp.sum(jnp.where(mine, value, 0)) for value in (expert, through - each, begins, ends)
    )
    begin = begin + (number - before) * TOKENS
    steps = jnp.minimum(lax.div(end - begin + (STEP - 1), STEP), len(WIDTHS))
    steps = jnp.where(number < jnp.sum(each), steps, 0)
    for index, widths in enumerate(WIDTHS, 1):
        pl.when(steps == index)(partial(tile, chosen, begin, end, widths))


def _places(begin: Any, widths: tuple[int, ...]) -> list[jax.Array]:
    """Places int32 [width] of each dot of a tile, one behind the other."""
    return [begin + sum(widths[:i]) + lax.iota(jnp.int32, width) for i, width in enumerate(widths)]


def _products(
    plan: Plan,
    matrices_ref: Any,
    scale_ref: Any,
    expert: Any,
    blocks: tuple[Any, ...],
    in_ref: Any,
    lines: list[jax.Array],
) -> list[tuple[jax.Array, ...]]:
    """Each block of an expert's rows times each group of lines of in_ref: float32 [rows, width], by group."""
    way = plan.columns
    zeros = [(jnp.zeros((plan.rows, len(group)), jnp.float32),) * len(blocks) for group in lines]

    def add(i: Any, sums: list[tuple[jax.Array, ...]]) -> list[tuple[jax.Array, ...]]:
        columns = i * way.size + lax.iota(jnp.int32, way.size)
        stored = [matrices_ref[expert, block, pl.ds(i * way.size, way.size)] for block in blocks]
        # Groups' factors meet the numbers here: beside sums of each group there is no room for those of all.
        factors = [way.factors(scale_ref, expert, block, i)[:, None] for block in blocks if way.of_group]
        for place, matrices in way.numbers(stored):
            if way.of_group:
                pairs = zip(matrices, factors, strict=True)
                matrices = [each.astype(factor.dtype) * factor for each, factor in pairs]
            matrices = [matrix.astype(in_ref.dtype) for matrix in matrices]
            found = []
            for group, totals in zip(lines, sums, strict=True):
                x = in_ref[(*place, group[:, None], columns[None, :])]
                parts = [product(matrix, x) for matrix in matrices]
                found.append(tuple(total + part for total, part in zip(totals, parts, strict=True)))
            sums = found
        return sums

    sums = lax.fori_loop(0, way.count, add, zeros)
    if scale_ref is None or way.of_group:
        return sums
    factors = [scale_ref[expert, block][:, None] for block in blocks]
    return [tuple(total * factor for total, factor in zip(totals, factors, strict=True)) for totals in sums]


def _write(out_ref: Any, lines: Any, first: Any, values: jax.Array) -> None:
    """Writes values [rows, width] as columns from `first` on of lines [width] of out_ref, but for those behind it."""
    columns = first + lax.iota(jnp.int32, values.shape[0])
    inside = (lines < out_ref.shape[0])[None, :]
    store(out_ref.at[lines[None, :], columns[:, None]], values.astype(out_ref.dtype), mask=inside)
