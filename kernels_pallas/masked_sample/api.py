"""The public form of `masked_sample`: what it takes, and which backend computes it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels_pallas import dispatch
from kernels_pallas.masked_sample import reference, triton


def masked_sample(
    logits: jax.Array,
    temperature: jax.Array,
    top_p: jax.Array,
    seed: jax.Array,
    index: jax.Array,
    *,
    stream: int | jax.Array,
    table: jax.Array | None = None,
    state: jax.Array | None = None,
    mask: jax.Array | None = None,
    needed: jax.Array | None = None,
    backend: str | None = None,
    target: dispatch.Target | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Chooses one entry a row.

    Greedy at temperatures up to 1e-6: the first of the largest logits. Else a draw from the softmax of the allowed
    logits at `temperature`, cut to its top-p set (entries before which, in descending order with ties by index, lies
    at most the share top_p): the entry that is largest with Gumbel noise added. Noise depends on seed, index, stream
    and column alone (`threefry`), so neither batch nor backend changes a draw, but for near ties.

    Args:
      logits: float32 [B, V].
      temperature, top_p: float32 [B]; top_p of 1 or more keeps everything.
      seed: uint32 [B].
      index: int32 [B], number of the generated token in its request.
      stream: which of 8 independent random streams: a number, or int32 [B].
      table, state: uint32 [S, ceil(V / 32)] and int32 [B]: entry v is allowed if bit v % 32 of
        table[state, v // 32] is set. Both or neither.
      mask: uint32 [B, ceil(V / 32)], a further restriction.
      needed: bool [B], rows whose draw is of any use (None: all). The others may give any entry, at no cost.
      backend, target: as for `dispatch.choose`.

    Returns:
      int32 [B], the entries, and float32 [B], their log-probabilities among the allowed at temperature 1. Where
      nothing is allowed: 0 and NaN.

    Raises:
      ValueError: arguments whose shapes or dtypes do not fit.
      dispatch.KernelUnavailable: the backend asked for cannot do it.
    """
    if needed is None:
        needed = jnp.ones(logits.shape[:1], bool)
    _check(logits, temperature, top_p, seed, index, stream, table, state, mask, needed)
    chosen = dispatch.choose("masked_sample", backend, target, triton.refusals(logits), loop=True)
    rest = {"stream": stream, "table": table, "state": state, "mask": mask, "needed": needed}
    if chosen in ("reference", "loop"):
        return reference.masked_sample(logits, temperature, top_p, seed, index, **rest, loop=chosen == "loop")
    return triton.masked_sample(logits, temperature, top_p, seed, index, **rest, interpret=chosen == "interpret")


def _check(logits, temperature, top_p, seed, index, stream, table, state, mask, needed) -> None:
    if logits.ndim != 2 or not logits.shape[1] or not jnp.issubdtype(logits.dtype, jnp.floating):
        raise ValueError(f"masked_sample: logits are {logits.dtype}{list(logits.shape)}, not float32 [B, V]")
    if isinstance(stream, int) and not 0 <= stream < 8:
        raise ValueError(f"masked_sample: stream {stream} is not in 0..7")
    if (table is None) != (state is None):
        raise ValueError("masked_sample: table and state are given together or not at all")
    rows, words = logits.shape[0], -(-logits.shape[1] // 32)
    states = table.shape[0] if table is not None and table.ndim else 0
    wanted = {
        "temperature": (temperature, jnp.float32, (rows,)),
        "top_p": (top_p, jnp.float32, (rows,)),
        "seed": (seed, jnp.uint32, (rows,)),
        "index": (index, jnp.int32, (rows,)),
        "stream": (None if isinstance(stream, int) else stream, jnp.int32, (rows,)),
        "table": (table, jnp.uint32, (states, words)),
        "state": (state, jnp.int32, (rows,)),
        "mask": (mask, jnp.uint32, (rows, words)),
        "needed": (needed, jnp.bool_, (rows,)),
    }
    for name, (array, dtype, shape) in wanted.items():
        if array is not None and (array.dtype != dtype or array.shape != shape):
            raise ValueError(
                f"masked_sample: {name} is {array.dtype}{list(array.shape)}, not {jnp.dtype(dtype).name}{list(shape)}"
            )
