"""The device programs as pure functions.

* `encode_images`: crops of several images -> their embeddings; one program a bucket of (images, crops).
* `prefix`: image embeddings -> key/value pages of their bidirectional prefixes. Nothing comes back.
* `prefill`: one chunk of several prompts, behind an image prefix in their pages or alone; the last chunk samples
  the next token and sets the rows' state.
* `step`: one token for every row.
* `forward` and `sample`: a step in two, for batches in which some row's next ids are restricted by the host: the mask
  is built while `forward` runs.

Cache and row state are donated through the programs that change them: one physical allocation each, updated in
place. One row of an output is `layout.Output`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxphoton.constraints.automaton import DONE, TokenAutomaton
from jaxphoton.engine import layout
from jaxphoton.engine.layout import Output, Prefill, Row
from jaxphoton.engine.state import Kernels, PagedCache, RowState, paged_attend
from jaxphoton.layers import moe
from jaxphoton.models.moondream import inputs, readouts, region
from jaxphoton.models.moondream import network as text
from jaxphoton.models.moondream.config import ModelConfig
from jaxphoton.models.moondream.network import Attend
from jaxphoton.models.moondream.params import Params
from kernels_pallas.masked_sample import masked_sample


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """What the programs are specialised to.

    Attributes:
      config: of the model.
      automaton: its grammars; becomes constants of the programs.
      table: width of a page-table row.
      mask_words: width of a host mask in a prefill's control, 0 without host masks.
      kernels: how attention, experts and sampling are computed.
    """

    config: ModelConfig
    automaton: TokenAutomaton
    table: int
    mask_words: int = 0
    kernels: Kernels = Kernels()

    @property
    def mix(self) -> moe.Mix:
        return partial(moe.mix, **self.kernels.options)


def prefix(family: Family, params: Params, cache: PagedCache, embeddings: jax.Array, pages: jax.Array) -> PagedCache:
    """Writes the prefixes (BOS and image) of embeddings [I, T, D] into pages int32 [I, ceil((1 + T) / G)]."""
    config = family.config
    images = embeddings.shape[0]
    bos = jnp.broadcast_to(params.text.wte[config.tokenizer.bos_id][None, None], (images, 1, embeddings.shape[2]))
    x = jnp.concatenate([bos, embeddings], axis=1)
    positions = jnp.broadcast_to(jnp.arange(x.shape[1], dtype=jnp.int32)[None], x.shape[:2])
    lengths, none = jnp.full(images, x.shape[1], jnp.int32), jnp.zeros(images, jnp.int32)
    attending = paged_attend(
        family.kernels, pages, positions, jnp.ones(x.shape[:2], bool), lengths, none, params.text.kv_scale
    )
    return text.forward(params.text, config.text, x, positions, attending, cache, family.mix)[1]


def prefill(
    family: Family, params: Params, cache: PagedCache, rows: RowState, control: jax.Array
) -> tuple[PagedCache, RowState, jax.Array]:
    """One chunk of prompts; control as `control.ControlPacker.prefill` packs it. Returns output int32 [B, Output]."""
    head, tables, mask, extra = jnp.split(
        control, (len(Row), len(Row) + family.table, len(Row) + family.table + family.mask_words), axis=1
    )
    batch, length = control.shape[0], (extra.shape[1] - len(Prefill)) // 4
    fed = extra[:, len(Prefill) :].reshape(batch, 4, length)
    values = lax.bitcast_convert_type(fed[:, 2:], jnp.float32).transpose(0, 2, 1)
    offsets = jnp.arange(length, dtype=jnp.int32)[None, :]
    count = extra[:, Prefill.COUNT]
    positions = head[:, Row.POSITION][:, None] + offsets
    attending = _attending(family, params, tables, positions, offsets < count[:, None], head)
    x = inputs.embed(params, fed[:, 0], fed[:, 1], values)
    hidden, cache = text.forward(params.text, family.config.text, x, positions, attending, cache, family.mix)
    last = jnp.maximum(count - 1, 0)[:, None, None]
    hidden = jnp.take_along_axis(hidden, last, axis=1)[:, 0]
    samples = extra[:, Prefill.SAMPLE] > 0
    before = _Before(samples, extra[:, Prefill.STATE], extra[:, Prefill.OBJECTS], head[:, Row.ROW])
    words = lax.bitcast_convert_type(mask, jnp.uint32) if family.mask_words else None
    rows, output = _sample(family, params, hidden, text.logits(params.text, hidden), head, before, rows, words)
    return cache, rows, output


def step(
    family: Family, params: Params, cache: PagedCache, rows: RowState, control: jax.Array
) -> tuple[PagedCache, RowState, jax.Array]:
    """One decode step; control int32 [B, Row + table]. Returns output int32 [B, Output].

    A row that has ended (or is padding) writes to page 0, changes nothing and comes back as ZOMBIE.
    """
    cache, hidden, logits = forward(family, params, cache, rows, control)
    rows, output = sample(family, params, rows, control, hidden, logits)
    return cache, rows, output


def forward(
    family: Family, params: Params, cache: PagedCache, rows: RowState, control: jax.Array
) -> tuple[PagedCache, jax.Array, jax.Array]:
    """The part of a step before sampling. Returns (cache, hidden [B, D], logits float32 [B, V])."""
    head, tables = control[:, : len(Row)], control[:, len(Row) :]
    before = _before_step(rows, head)
    positions = head[:, Row.POSITION][:, None]
    attending = _attending(family, params, tables, positions, before.active[:, None], head)
    row = before.row
    x = inputs.embed(params, rows.token[row][:, None], rows.kind[row][:, None], rows.value[row][:, None])
    hidden, cache = text.forward(params.text, family.config.text, x, positions, attending, cache, family.mix)
    return cache, hidden[:, 0], text.logits(params.text, hidden[:, 0])


def sample(
    family: Family,
    params: Params,
    rows: RowState,
    control: jax.Array,
    hidden: jax.Array,
    logits: jax.Array,
    mask: jax.Array | None = None,
) -> tuple[RowState, jax.Array]:
    """The rest of a step, behind `forward` with the same control; mask uint32 [B, ceil(V / 32)] restricts ids."""
    head = control[:, : len(Row)]
    return _sample(family, params, hidden, logits, head, _before_step(rows, head), rows, mask)


def _attending(
    family: Family, params: Params, tables: jax.Array, positions: jax.Array, valid: jax.Array, head: jax.Array
) -> Attend:
    """Attention of positions behind their image prefix, or of rows without one."""
    holes = head[:, Row.HOLE]
    # Behind a prefix that ends on a page border nothing is hidden: as for text alone.
    prefixes = jnp.where(holes > 0, family.config.text.prefix_attn, 0).astype(jnp.int32)
    return paged_attend(family.kernels, tables, positions, valid, prefixes, holes, params.text.kv_scale)


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
    family: Family,
    params: Params,
    hidden: jax.Array,
    logits: jax.Array,
    head: jax.Array,
    before: _Before,
    rows: RowState,
    mask: jax.Array | None,
) -> tuple[RowState, jax.Array]:
    """Chooses the next token of every row, advances its automaton, decides whether it ends."""
    automaton, ids = family.automaton, family.config.tokenizer
    with jax.named_scope("sample"):
        allowed = {"table": jnp.asarray(automaton.allowed), "state": before.state, "mask": mask}
        token, logprob = _draw(family, head, logits, layout.TOKEN_STREAM, before.active, **allowed)
        in_region = jnp.asarray(automaton.region)[before.state] & before.active
        reads = in_region & (token == ids.coord_id), in_region & (token == ids.size_id)
        bins, bins_logprob = _bins(family, params, hidden, head, *reads)
        kind = jnp.where(reads[0], inputs.COORDINATE, jnp.where(reads[1], inputs.SIZE, inputs.TOKEN)).astype(jnp.int32)
        token_class = jnp.asarray(automaton.token_class)[token].astype(jnp.int32)
        state = jnp.asarray(automaton.next_state)[before.state, token_class]
        completes = jnp.asarray(automaton.completes)[before.state, token_class]
        objects = before.objects + completes.astype(jnp.int32)
        full = (head[:, Row.INDEX] + 1 >= head[:, Row.MAX_TOKENS]) | (completes & (objects >= head[:, Row.MAX_OBJECTS]))
        finish = jnp.where(state == DONE, layout.STOP, jnp.where(full, layout.LENGTH, layout.RUNNING))
        after = (token, kind, _values(family, kind, bins), jnp.where(finish == layout.RUNNING, state, DONE), objects)
        rows = _update(rows, before.row, before.active, RowState(*after))
        finish = jnp.where(before.active, finish, layout.ZOMBIE)
        bits = lax.bitcast_convert_type(logprob + bins_logprob, jnp.int32)
        columns = {
            Output.TOKEN: token,
            Output.BIN_0: jnp.where(kind == inputs.TOKEN, -1, bins[:, 0]),
            Output.BIN_1: jnp.where(kind == inputs.SIZE, bins[:, 1], -1),
            Output.FINISH: finish,
            Output.LOGPROB: bits,
        }
        return rows, jnp.stack([columns[c].astype(jnp.int32) for c in Output], axis=1)


def _draw(
    family: Family, head: jax.Array, logits: jax.Array, stream: int, needed: jax.Array, **allowed: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    def floats(column: Row) -> jax.Array:
        return lax.bitcast_convert_type(head[:, column], jnp.float32)

    seed = lax.bitcast_convert_type(head[:, Row.SEED], jnp.uint32)
    options = {"stream": stream, "needed": needed, **allowed, **family.kernels.options}
    return masked_sample(logits, floats(Row.TEMPERATURE), floats(Row.TOP_P), seed, head[:, Row.INDEX], **options)


def _bins(
    family: Family, params: Params, hidden: jax.Array, head: jax.Array, coordinate: jax.Array, size: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """What the region heads choose: bins int32 [B, 2] and their log-probability [B]; zeros where nothing is read.

    The heads are 6% of a step's bytes: texts do not read them.
    """

    def read() -> tuple[jax.Array, jax.Array]:
        coordinates, sizes = region.decode(params.region, family.config.region, hidden)
        x, x_logprob = _draw(family, head, coordinates, layout.COORDINATE_STREAM, coordinate)
        width, width_logprob = _draw(family, head, sizes[:, 0], layout.WIDTH_STREAM, size)
        height, height_logprob = _draw(family, head, sizes[:, 1], layout.HEIGHT_STREAM, size)
        bins = jnp.stack([jnp.where(size, width, x), height], axis=1)
        logprob = jnp.where(size, width_logprob + height_logprob, x_logprob)
        return bins, jnp.where(coordinate | size, logprob, 0.0)

    def skip() -> tuple[jax.Array, jax.Array]:
        rows = hidden.shape[0]
        return jnp.zeros((rows, 2), jnp.int32), jnp.zeros(rows, jnp.float32)

    return lax.cond(jnp.any(coordinate | size), read, skip)


def _values(family: Family, kind: jax.Array, bins: jax.Array) -> jax.Array:
    """float32 [B, 2]: the coordinate, or width and height."""
    coordinates = jnp.asarray(readouts.coordinate_values(family.config.region))
    sizes = jnp.asarray(readouts.size_values(family.config.region))
    first = jnp.where(kind == inputs.COORDINATE, coordinates[bins[:, 0]], sizes[bins[:, 0]])
    return jnp.where((kind == inputs.TOKEN)[:, None], 0.0, jnp.stack([first, sizes[bins[:, 1]]], axis=1))


def _update(rows: RowState, row: jax.Array, active: jax.Array, after: RowState) -> RowState:
    def put(old: jax.Array, new: jax.Array) -> jax.Array:
        keep = old[row]
        return old.at[row].set(jnp.where(active.reshape(active.shape + (1,) * (new.ndim - 1)), new, keep))

    return jax.tree.map(put, rows, after)
