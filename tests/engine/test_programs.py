"""The compiled programs and the device that runs them."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxphoton.engine import compiled, programs
from jaxphoton.engine import control as layout
from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.control import Block, ControlPacker, Output
from jaxphoton.engine.device import Device
from jaxphoton.engine.launch import PrefillPlan, StepPlan
from jaxphoton.engine.pipeline import Launch
from jaxphoton.engine.request import Sequence
from tests.engine.tiny import (
    CONFIG,
    ENGINE,
    FAMILY,
    TABLES,
    Loop,
    Poisoned,
    Schedule,
    at_once,
    request,
    sequence_of,
    with_engine,
)

REQUESTS = [
    request("text", 5, seed=1),
    request("detect", 20, 0, seed=6, temperature=1.5),
    request("point", 3, 0, seed=34, temperature=1.5),
    request("reasoning", 30, 2, seed=4),
]


def choices(sequences: list[Sequence]) -> list:
    return [[(token.id, token.bins, token.logprob) for token in sequence.tokens] for sequence in sequences]


class Watched(Device):
    """Counts fetches and keeps every control array, with a copy of what it was at its launch."""

    def __init__(self, programs: Programs):
        super().__init__(programs)
        self.controls: list[tuple[np.ndarray, np.ndarray]] = []
        self.fetched = 0

    def prefill(self, plan: PrefillPlan):
        return self._keep(super().prefill(plan))

    def step(self, plan: StepPlan):
        return self._keep(super().step(plan))

    def fetch(self, output: jax.Array) -> np.ndarray:
        self.fetched += 1
        return super().fetch(output)

    def _keep(self, launched):
        self.controls.append((launched[0], launched[0].copy()))
        return launched


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("grammar", ["text", "detect", "point"])
def test_on_a_real_device_too_launches_run_a_step_ahead_at_depth_2_alone(programs, grammar, depth):
    events: list[tuple[str, int]] = []

    def note(name: str, launch: Launch) -> None:
        events.append((name, launch.number))

    asked = request(grammar, seed=58, temperature=1.5, max_tokens=6)
    (sequence,), _ = Loop(programs).run(Schedule(at_once(asked), depth=depth), note)
    assert len(sequence.tokens) > 1
    for number in range(len(sequence.tokens) - 1):
        ahead = events.index(("launch", number + 1)) < events.index(("commit_begin", number))
        assert ahead == (depth == 2)


def test_every_launch_has_a_control_array_of_its_own_and_is_read_once(programs, monkeypatch):
    device, reads, launches = Watched(programs), [], []
    asarray = np.asarray

    def counting(value, *arguments, **options):
        if isinstance(value, jax.Array):
            reads.append(value)
        return asarray(value, *arguments, **options)

    monkeypatch.setattr(np, "asarray", counting)
    Loop(programs, device).run(Schedule(at_once(*REQUESTS)), lambda name, launch: launches.append(name))
    monkeypatch.undo()
    assert launches.count("launch") == len(device.controls) == device.fetched == len(reads)
    controls = [control for control, _ in device.controls]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(controls) for b in controls[:i])
    for control, at_launch in device.controls:
        np.testing.assert_array_equal(control, at_launch)


def test_nothing_is_compiled_after_warm_up(programs):
    loop, compiled = Loop(programs), []

    def note(event: str, duration_secs: float, **_) -> None:
        if "compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        jax.jit(lambda x: x + 1)(np.float32(1)).block_until_ready()
        assert compiled, "compilations are no longer announced: this test sees nothing"
        compiled.clear()
        loop.run(Schedule(at_once(*REQUESTS), rows=3, pages=40))
        loop.run(Schedule(at_once(*REQUESTS), depth=1))
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    assert compiled == []


def test_an_unplanned_shape_is_an_error(programs):
    cache, rows = programs.fresh_state()
    control = ControlPacker(ENGINE.max_rows, programs.table, programs.mask_words, programs.family.readout).step([], 4)
    with pytest.raises(TypeError, match="shape|called with"):
        programs["step", 8](programs.decoder, cache, rows, control)
    with pytest.raises(KeyError):
        programs["step", 4]
    assert not cache.k.is_deleted()


@pytest.mark.parametrize("pages", [None, 60])
def test_what_free_pages_hold_does_not_matter(programs, pages):
    schedule = Schedule(at_once(*REQUESTS), pages=pages, rows=3)
    clean, _ = Loop(programs).run(schedule)
    poisoned, _ = Loop(Poisoned(programs)).run(schedule)
    assert choices(clean) == choices(poisoned)
    assert np.all(np.isfinite([token.logprob for sequence in poisoned for token in sequence.tokens]))


class Bench:
    """Programs run by hand for one sequence in row 2 with pages of its own."""

    def __init__(self, programs: Programs, max_tokens: int = 20):
        self.programs = programs
        self.packer = ControlPacker(ENGINE.max_rows, programs.table, programs.mask_words, programs.family.readout)
        self.cache, self.rows = programs.fresh_state()
        self.sequence = sequence_of(request(prompt=4, max_tokens=max_tokens))  # 5 of the 6 ids of a chunk
        self.sequence.row, self.sequence.pages = 2, [7, 4, 9, 5, 11, 6, 12]

    def prefill(self) -> np.ndarray:
        control = self.packer.prefill([self.sequence], 0, 1, 3, 6, TABLES)
        return self._run(self.programs["prefill", 3, 6], control)

    def step(self) -> np.ndarray:
        return self._run(self.programs["step", 8], self.packer.step([self.sequence], 8))

    def pool(self) -> np.ndarray:
        """Keys and values, [2, L, P, G, K, H]."""
        return np.array([self.cache.k, self.cache.v])

    def state(self) -> list[np.ndarray]:
        return [np.array(leaf) for leaf in jax.tree.leaves(self.rows)]

    def _run(self, program: Callable, control: np.ndarray) -> np.ndarray:
        self.cache, self.rows, output = program(self.programs.decoder, self.cache, self.rows, control)
        self.sequence.inflight_refs += 1
        return np.array(output)


def test_cache_and_row_state_stay_where_they_are(programs):
    bench = Bench(programs)
    addresses = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((bench.cache, bench.rows))]
    for launch in (bench.prefill, *[bench.step] * 5):
        before = jax.tree.leaves((bench.cache, bench.rows))
        launch()
        assert all(leaf.is_deleted() for leaf in before)
        after = jax.tree.leaves((bench.cache, bench.rows))
        assert [leaf.unsafe_buffer_pointer() for leaf in after] == addresses


def test_an_image_prefix_is_written_in_place(programs):
    cache, _ = programs.fresh_state()
    addresses = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(cache)]
    embeddings = np.zeros((1, CONFIG.vision.image_tokens, CONFIG.text.dim), np.float32)
    control = np.zeros((1, programs.table + len(Block)), np.int32)
    control[0, :3], control[0, programs.table :] = (3, 1, 2), (0, 10, 10)
    after = programs["prefix", 1, 10](programs.decoder, cache, embeddings, control)
    assert cache.k.is_deleted() and cache.v.is_deleted()
    assert [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(after)] == addresses
    written = np.flatnonzero(np.any(np.array(after.k) != 0, axis=(0, 2, 3, 4)))
    assert written.tolist() == [1, 2, 3]


def changed_cells(before: np.ndarray, after: np.ndarray) -> list[tuple[int, int]]:
    """(page, offset) of every cell that is not the trash page's and has changed."""
    cells = np.any(before != after, axis=(0, 1, 4, 5))
    return [(int(page), int(offset)) for page, offset in zip(*np.nonzero(cells), strict=True) if page != 0]


def test_padding_writes_to_page_0_only(programs):
    bench = Bench(programs)
    empty = bench.pool()
    bench.prefill()
    prefilled = bench.pool()
    assert changed_cells(empty, prefilled) == sorted((page, i) for page, most in ((7, 4), (4, 1)) for i in range(most))
    for cell in ((4, 1), (4, 2), (4, 3), (9, 0)):
        before = bench.pool()
        bench.step()
        assert changed_cells(before, bench.pool()) == [cell]


def test_a_launch_without_sequences_changes_page_0_only(programs):
    bench = Bench(programs)
    bench.prefill()
    pool, state = bench.pool(), bench.state()
    output = bench._run(programs["step", 8], bench.packer.step([], 8))
    assert changed_cells(pool, bench.pool()) == []
    for before, after in zip(state, bench.state(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert set(output[:, Output.FINISH].tolist()) == {layout.ZOMBIE}


def test_a_row_that_has_ended_writes_to_page_0_and_changes_nothing(programs):
    bench = Bench(programs, max_tokens=2)
    bench.prefill()
    assert bench.step()[0, Output.FINISH] == layout.LENGTH
    pool, state = bench.pool(), bench.state()
    assert bench.step()[0, Output.FINISH] == layout.ZOMBIE
    assert changed_cells(pool, bench.pool()) == []
    for before, after in zip(state, bench.state(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_step_takes_the_form_it_is_told_or_the_one_that_was_measured(programs, monkeypatch):
    def parts(rows: int, **changes) -> tuple[str, ...]:
        return with_engine(programs, **changes).step_config(rows).kernels.step

    assert parts(8) == parts(8, step_form="xla") == ()
    assert parts(8, step_form="norm+output") == ("norm", "output")
    assert parts(8, step_form="fused") == ("norm", "input", "attention", "output")
    assert programs.program_config.kernels.step == (), "prefills have more positions than the parts take"
    asked = []
    monkeypatch.setattr(compiled, "step_form", lambda *asked_for: asked.append(asked_for) or "norm")
    assert parts(8) == (), "float32 was not measured"
    monkeypatch.setattr(programs, "dtype", jnp.dtype(jnp.bfloat16))
    assert parts(8) == ("norm",) and asked == [(jax.devices()[0].device_kind, 8)]
    assert parts(8, step_form="xla") == () and len(asked) == 1


def test_draws_of_any_widths_are_those_that_each_would_be_alone():
    rows, random = 4, np.random.default_rng(5)
    head = np.zeros((rows, len(layout.Row)), np.int32)
    head[:, layout.Row.INDEX], head[:, layout.Row.SEED] = random.integers(0, 99, (2, rows))
    head[:, layout.Row.TEMPERATURE] = np.array([0, 0.5, 1, 2], np.float32).view(np.int32)
    head[:, layout.Row.TOP_P] = np.array([1, 0.9, 0.5, 1], np.float32).view(np.int32)
    wanted = [
        (jnp.asarray(random.normal(0, 2, (rows, width)), jnp.float32), stream, jnp.ones(rows, bool))
        for stream, width in enumerate((16, 24, 16, 16), 1)
    ]
    config = programs.ProgramConfig(FAMILY, TABLES, 4)
    drawn = programs._draws(config, jnp.asarray(head), wanted)
    alone = [programs._draws(config, jnp.asarray(head), [one])[0] for one in wanted]
    np.testing.assert_array_equal(np.stack([chosen for chosen, _ in drawn]), np.stack([chosen for chosen, _ in alone]))
    np.testing.assert_allclose(np.stack([p for _, p in drawn]), np.stack([p for _, p in alone]), atol=1e-6)
    assert len({chosen.tobytes() for chosen in map(np.asarray, (drawn[0][0], drawn[2][0], drawn[3][0]))}) == 3
