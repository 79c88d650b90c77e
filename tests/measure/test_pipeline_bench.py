"""Blocking and pipelined runs of the same requests, and what is made of them."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from types import SimpleNamespace

import pytest

from jaxphoton.engine.metrics import LaunchMetrics
from jaxphoton.measure import decoding
from jaxphoton.measure.decoding import DecodeBench, Run, compile_programs
from jaxphoton.measure.pipeline_bench import interleaved, summarise, table
from tests.engine import tiny

TOKENS = 6


@pytest.fixture(scope="module")
def bench() -> DecodeBench:
    programs = compile_programs(tiny.parameters(), tiny.FAMILY, rows=2, tokens=TOKENS, context=20)
    return DecodeBench(programs, rows=2, tokens=TOKENS, context=20)


def step(began: float, arrived: float, commit: float = 0.25, rows: int = 2, zombies: int = 0) -> LaunchMetrics:
    parts = {"plan": 0.5, "launch": 0.125, "sample": 0.0, "sampled": 0.0, "wait": 1.0}
    return LaunchMetrics(
        0, "step", rows, zombies, images=0, pages=1, slot=0, began=began, arrived=arrived, commit=commit, **parts
    )


def test_ended_rows_cost_a_pipelined_run_one_step_and_a_blocking_run_none(bench):
    assert bench.run(1).zombie_fraction == 0
    # The first token is the prefill's; the step behind the last one runs only for rows that have ended.
    pipelined = bench.run(2)
    assert len(pipelined.steps) == TOKENS
    assert pipelined.zombie_fraction == 1 / TOKENS


def test_delivery_by_callback_runs_the_same_steps(bench):
    run = bench.run_with_callbacks(2)
    assert len(run.steps) == TOKENS and run.zombie_fraction == 1 / TOKENS


def test_interleaved_runs_come_in_pairs_of_the_right_depth(bench):
    blocking, pipelined = interleaved(bench, rounds=2)
    assert [run.zombie_fraction for run in blocking] == [0, 0]
    assert [run.zombie_fraction for run in pipelined] == [1 / TOKENS] * 2


@pytest.mark.parametrize(
    ("step_s", "forward_s", "parts"), [(5.0, 3.0, (3.0, 2.0)), (3.0, 4.0, (3.0, 0.0))], ids=["usual", "noise"]
)
def test_sampling_is_what_a_step_takes_beyond_its_forward_pass(bench, monkeypatch, step_s, forward_s, parts):
    def interleaved(launches):
        for launch in launches.values():
            launch()
        return {"step": step_s, "forward": forward_s}

    monkeypatch.setattr(decoding.timing, "interleaved", interleaved)
    assert bench.device_seconds() == parts


def test_host_work_is_in_the_commits(bench, monkeypatch):
    clock = map(float, itertools.count())
    monkeypatch.setattr(decoding, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    working = copy.copy(bench)
    working.host_work = 30.0
    assert max(step.commit for step in bench.run(1).steps) < 30 < min(step.commit for step in working.run(1).steps)


def test_figures_follow_from_the_runs():
    blocking = [Run(tuple(step(10 * i, 10.0 * i + 9) for i in range(4)), 40.0, 0.0)]
    pipelined = [Run(tuple(step(6 * i, 6.0 * i + 5) for i in range(4)), 25.0, 0.25)]
    report = summarise(2, 4, forward=4.0, sampling=1.0, blocking=blocking, pipelined=pipelined)
    assert report.t_block_ms == 10e3 and report.t_pipe_ms == 6e3
    assert report.predicted_speedup == pytest.approx(10 / 6 * 0.75)
    assert report.observed_speedup == pytest.approx(40 / 25)
    host = 0.5 + 0.125 + 0.25
    assert report.predicted_from_parts == pytest.approx((5 + host) / 5)
    assert report.idle_ms == pytest.approx(1e3)
    assert set(report.spread) <= set(dataclasses.asdict(report))
    assert all(low <= getattr(report, name) <= high for name, (low, high) in report.spread.items())
    assert any("observed" in line for line in table([report, report]))
