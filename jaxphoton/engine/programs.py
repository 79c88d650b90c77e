"""The device programs as pure functions.

* `prefix`: image embeddings (of `Network.encode`) -> key/value pages of their prefixes, or of an image block further
  behind in a prompt. Nothing comes back.
* `prefill`: one chunk of several prompts, behind an image prefix in their pages or alone; the last chunk samples
  the next token and sets the rows' state.
* `step`: one token for every row.
* `forward` and `sample`: a step in two, for batches in which some row's next ids are restricted by the host: the mask
  is built while `forward` runs.
* `adapter`: puts an adapter into a slot of the pool that all but `sample` read, `with_adapters` of them.

Cache and row state are donated through the programs that change them: one physical allocation each, updated in
place. One row of an output is `control.Output`, followed by the columns of the family's readout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxphoton.constraints.automaton import DONE, TokenAutomaton
from jaxphoton.engine import control as layout
from jaxphoton.engine.control import Block, Prefill, Row
from jaxphoton.engine.state import PagedCache, RowState, joined_attend, paged_attend
from jaxphoton.layers.adapters import put
from jaxphoton.layers.placed import placed
from jaxphoton.models.protocol import Family, Kernels
from kernels_pallas.masked_sample import masked_sample


@dataclass(frozen=True, slots=True, eq=False)
class ProgramConfig:
    """What the programs are specialised to.

    Attributes:
      family: of the model.
      automaton: its grammars; becomes constants of the programs.
      table: width of a page-table row.
      mask_words: width of a host mask in a prefill's control, 0 without host masks.
      kernels: how attention, experts and sampling are computed.
    """

    family: Family
    automaton: TokenAutomaton
    table: int
    mask_words: int = 0
    kernels: Kernels = Kernels()

    @property
    def fed(self) -> int:
        """Numbers that a token carries besides its id."""
        return 0 if self.family.readout is None else self.family.readout.fed


def on_device(program: Callable[..., Any], share: Callable[[Any], Any] | None = None) -> Callable[..., Any]:
    """A program whose matrices of few bits multiply as its device does it best, and on a mesh know that they are shares
    of whole ones."""

    @wraps(program)
    def run(config: ProgramConfig, params: Any, *arguments: Any) -> Any:
        params = params if share is None else share(params)
        return program(config, placed(params, **config.kernels.options), *arguments)

    return run


def with_adapters(program: Callable[..., Any]) -> Callable[..., Any]:
    """A program whose parameters are (parameters, pool of adapters), and whose control ends with the rows' slots."""

    @wraps(program)
    def adapted(config: ProgramConfig, params: tuple[Any, Any], *arguments: jax.Array) -> Any:
        *others, control = arguments
        params = config.family.network.with_adapters(*params, control[:, -1])
        return program(config, params, *others, control[:, :-1])

    return adapted


def adapter(config: ProgramConfig, pool: Any, one: Any, slot: jax.Array) -> Any:
    """The pool with an adapter (`Network.adapter_slot`) in slot number `slot`, int32 []."""
    return put(pool, one, slot)


def prefix(
    config: ProgramConfig, params: Any, cache: PagedCache, embeddings: jax.Array, control: jax.Array
) -> PagedCache:
    """Writes image blocks with embeddings [I, N, D], each behind all that its pages hold already: prefixes, or further
    blocks. Control as `control.ControlPacker.prefix` and `block` pack it."""
    family, network = config.family, config.family.network
    tables, head, ids = jnp.split(control, (config.table, config.table + len(Block)), axis=1)
    start, count = head[:, Block.START], head[:, Block.COUNT]
    x = network.embed_prefix(params, None if family.fixed_prefix else ids, embeddings)
    offsets = jnp.arange(x.shape[1], dtype=jnp.int32)[None]
    if family.fixed_prefix:
        # A further block is the end of a prefix: what stands before the image in that goes.
        left_out = x.shape[1] - count[:, None]
        x = jnp.take_along_axis(x, (offsets + left_out)[..., None], axis=1, mode="clip")
    positions = start[:, None] + offsets
    ends = jnp.zeros_like(count) if family.causal else start + count
    places = (cache.page_size, tables, positions, offsets < count[:, None], head[:, Block.PREFIX])
    attend = paged_attend(config.kernels, *places, network.kv_scale(params), ends)
    return network.forward(params, x, positions, attend, cache, config.kernels)[1]


def prefill(
    config: ProgramConfig, params: Any, cache: PagedCache, rows: RowState, control: jax.Array
) -> tuple[PagedCache, RowState, jax.Array]:
    """One chunk of prompts; control as `control.ControlPacker.prefill` packs it. Returns the output, int32 [B, _]."""
    network, parts = config.family.network, 1 + config.fed
    head, tables, mask, extra = jnp.split(
        control, (len(Row), len(Row) + config.table, len(Row) + config.table + config.mask_words), axis=1
    )
    batch, length = control.shape[0], (extra.shape[1] - len(Prefill)) // parts
    inputs = extra[:, len(Prefill) :].reshape(batch, parts, length)
    offsets = jnp.arange(length, dtype=jnp.int32)[None, :]
    count = extra[:, Prefill.COUNT]
    positions = head[:, Row.POSITION][:, None] + offsets
    places = (cache.page_size, tables, positions, offsets < count[:, None], head[:, Row.PREFIX])
    attend = paged_attend(config.kernels, *places, network.kv_scale(params))
    x = network.embed(params, inputs[:, 0], inputs[:, 1:].transpose(0, 2, 1))
    hidden, cache = network.forward(params, x, positions, attend, cache, config.kernels)
    last = jnp.maximum(count - 1, 0)[:, None, None]
    hidden = jnp.take_along_axis(hidden, last, axis=1)[:, 0]
    samples = extra[:, Prefill.SAMPLE] > 0
    before = _Before(samples, extra[:, Prefill.STATE], extra[:, Prefill.OBJECTS], head[:, Row.ROW])
    words = lax.bitcast_convert_type(mask, jnp.uint32) if config.mask_words else None
    rows, output = _sample(config, params, hidden, network.logits(params, hidden), head, before, rows, words)
    return cache, rows, output


def step(
    config: ProgramConfig, params: Any, cache: PagedCache, rows: RowState, control: jax.Array
) -> tuple[PagedCache, RowState, jax.Array]:
    """One decode step; control int32 [B, Row + table]. Returns the output, int32 [B, _].

    A row that has ended (or is padding) writes to page 0, changes nothing and comes back as ZOMBIE.
    """
    cache, hidden, logits = forward(config, params, cache, rows, control)
    rows, output = sample(config, params, rows, control, hidden, logits)
    return cache, rows, output


def forward(
    config: ProgramConfig, params: Any, cache: PagedCache, rows: RowState, control: jax.Array
) -> tuple[PagedCache, jax.Array, jax.Array]:
    """The part of a step before sampling. Returns (cache, hidden [B, D], logits float32 [B, V])."""
    network = config.family.network
    head, tables = control[:, : len(Row)], control[:, len(Row) :]
    before = _before_step(rows, head)
    positions = head[:, Row.POSITION][:, None]
    places = (cache.page_size, tables, positions, before.active[:, None], head[:, Row.PREFIX], network.kv_scale(params))
    attend, joined = paged_attend(config.kernels, *places), None
    if "attention" in config.kernels.step:
        joined = joined_attend(config.kernels, config.family.heads, *places)
    row = before.row
    fed = jnp.zeros((len(row), 0), jnp.int32) if rows.fed is None else rows.fed[row]
    x = network.embed(params, rows.token[row][:, None], fed[:, None])
    hidden, cache = network.forward(params, x, positions, attend, cache, config.kernels, attend_joined=joined)
    return cache, hidden[:, 0], network.logits(params, hidden[:, 0])


def sample(
    config: ProgramConfig,
    params: Any,
    rows: RowState,
    control: jax.Array,
    hidden: jax.Array,
    logits: jax.Array,
    mask: jax.Array | None = None,
) -> tuple[RowState, jax.Array]:
    """The rest of a step, behind `forward` with the same control; mask uint32 [B, ceil(V / 32)] restricts ids."""
    head = control[:, : len(Row)]
    return _sample(config, params, hidden, logits, head, _before_step(rows, head), rows, mask)


@dataclass(frozen=True, slots=True)
class _Before:
    """A row before it samples: whether it does, in which automaton state, with how many objects, and which row of the
    state it is; all [B]."""

    active: jax.Array
    state: jax.Array
    objects: jax.Array
    row: jax.Array


def _before_step(rows: RowState, head: jax.Array) -> _Before:
    row = head[:, Row.ROW]
    state = rows.state[row]
    active = (state != DONE) & (row < rows.state.shape[0] - 1)
    return _Before(active, state, rows.objects[row], row)


def _sample(
    config: ProgramConfig,
    params: Any,
    hidden: jax.Array,
    logits: jax.Array,
    head: jax.Array,
    before: _Before,
    rows: RowState,
    mask: jax.Array | None,
) -> tuple[RowState, jax.Array]:
    """Chooses the next token of every row, advances its automaton, decides whether it ends."""
    automaton, readout = config.automaton, config.family.readout
    with jax.named_scope("sample"):
        allowed = {"table": jnp.asarray(automaton.allowed), "state": before.state, "mask": mask}
        token, logprob = _draw(config, head, logits, layout.TOKEN_STREAM, before.active, **allowed)
        fed, columns = None, ()
        if readout is not None:
            reads = jnp.asarray(automaton.reads)[before.state] & before.active
            fed, columns, read_logprob = readout.read(params, hidden, token, reads, partial(_draws, config, head))
            logprob = logprob + read_logprob
        token_class = jnp.asarray(automaton.token_class)[token].astype(jnp.int32)
        state = jnp.asarray(automaton.next_state)[before.state, token_class]
        completes = jnp.asarray(automaton.completes)[before.state, token_class]
        objects = before.objects + completes.astype(jnp.int32)
        full = (head[:, Row.INDEX] + 1 >= head[:, Row.MAX_TOKENS]) | (completes & (objects >= head[:, Row.MAX_OBJECTS]))
        finish = jnp.where(state == DONE, layout.STOP, jnp.where(full, layout.LENGTH, layout.RUNNING))
        after = RowState(token, fed, jnp.where(finish == layout.RUNNING, state, DONE), objects)
        rows = _update(rows, before.row, before.active, after)
        finish = jnp.where(before.active, finish, layout.ZOMBIE)
        bits = lax.bitcast_convert_type(logprob, jnp.int32)
        # In the order of `Output`.
        return rows, jnp.stack([token, finish.astype(jnp.int32), bits, *columns], axis=1)


def _draws(
    config: ProgramConfig, head: jax.Array, wanted: Sequence[tuple[jax.Array, int, jax.Array]]
) -> list[tuple[jax.Array, jax.Array]]:
    """`protocol.Draw`. Draws of one width are one of as many times the rows: fewer launches, and less code."""
    rows, drawn = head.shape[0], {}
    for width in dict.fromkeys(logits.shape[1] for logits, _, _ in wanted):
        alike = [number for number, (logits, _, _) in enumerate(wanted) if logits.shape[1] == width]
        logits, streams, needed = zip(*(wanted[number] for number in alike), strict=True)
        heads, stream = jnp.tile(head, (len(alike), 1)), jnp.repeat(jnp.array(streams, jnp.int32), rows)
        results = _draw(config, heads, jnp.concatenate(logits), stream, jnp.concatenate(needed))
        parts = zip(*(jnp.split(result, len(alike)) for result in results), strict=True)
        drawn |= dict(zip(alike, parts, strict=True))
    return [drawn[number] for number in range(len(wanted))]


def _draw(
    config: ProgramConfig,
    head: jax.Array,
    logits: jax.Array,
    stream: int | jax.Array,
    needed: jax.Array,
    **allowed: Any,
) -> tuple[jax.Array, jax.Array]:
    def floats(column: Row) -> jax.Array:
        return lax.bitcast_convert_type(head[:, column], jnp.float32)

    seed = lax.bitcast_convert_type(head[:, Row.SEED], jnp.uint32)
    options = {"stream": stream, "needed": needed, **allowed, **config.kernels.options}
    return masked_sample(logits, floats(Row.TEMPERATURE), floats(Row.TOP_P), seed, head[:, Row.INDEX], **options)


def _update(rows: RowState, row: jax.Array, active: jax.Array, after: RowState) -> RowState:
    def put(old: jax.Array, new: jax.Array) -> jax.Array:
        keep = old[row]
        return old.at[row].set(jnp.where(active.reshape(active.shape + (1,) * (new.ndim - 1)), new, keep))

    return jax.tree.map(put, rows, after)
