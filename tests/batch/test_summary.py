"""What a run came to, and what tells two models apart."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any, Literal, cast

import jax
import numpy as np
import pytest

from jaxphoton import Moondream
from jaxphoton.batch.journal.record import Record
from jaxphoton.batch.model import OpenModel, model_digest
from jaxphoton.batch.options import RunOptions
from jaxphoton.batch.summary import Tally, cost_per_million, duration
from jaxphoton.batch.workers.inprocess import LocalAnswerer
from jaxphoton.engine.metrics import LaunchMetrics, Observers
from jaxphoton.weights import hub
from jaxphoton.weights.load import load_model

TEXT = {"task": "caption", "caption": "a cat", "tokens": 7, "finish_reason": "stop"}


def launch(kind: Literal["prefill", "step"], began: float, arrived: float, plan: float = 0.0) -> LaunchMetrics:
    zero = dict.fromkeys(("number", "rows", "zombies", "images", "pages", "slot"), 0)
    times = dict.fromkeys(("launch", "sample", "sampled", "wait", "commit"), 0.0)
    return LaunchMetrics(kind=kind, began=began, arrived=arrived, plan=plan, **zero, **times)


def test_the_device_s_time_is_shared_out_among_the_stages():
    observers = Observers("launches")
    launches = [
        launch("prefill", 10.0, 12.0),
        launch("step", 11.0, 13.0),  # enqueued while the prefill ran
        launch("step", 17.0, 19.0, plan=0.5),  # 4 s without any image, half a second of planning
    ]

    def answer(jobs):
        for each in launches:
            observers.tell("launches", each)
            yield each

    answerer = LocalAnswerer(cast(Moondream, SimpleNamespace(observe=observers.add, answer=answer)))
    assert list(answerer.answer([])) == launches
    assert answerer.stages == {"waiting for images": 4.0, "encode and prefill": 2.0, "decode": 2.5, "idle": 0.5}
    observers.tell("launches", launches[0])
    assert answerer.stages["decode"] == 2.5  # it listens to its own answers alone


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """Of the summary and of what answers; stands still unless told."""
    clock = SimpleNamespace(now=100.0)
    for module in ("summary", "workers.inprocess"):
        monkeypatch.setattr(f"jaxphoton.batch.{module}.time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_compiling_is_told_apart_from_the_rates(clock):
    def start():
        clock.now += 90.0

    answerer = LocalAnswerer(cast(Moondream, SimpleNamespace(start=start)))
    answerer.start()
    tally = Tally()
    clock.now += 3.0
    tally.start(answerer.compiling)
    for _ in range(10):
        tally.add(Record("a", "ok", results=(TEXT,)))
    clock.now += 5.0
    figures = tally.summary({}, price=7.2)
    assert (figures["compiling"], figures["seconds"], figures["images_per_s"]) == (90.0, 5.0, 2.0)
    assert figures["tokens_per_s"] == 14.0 and figures["cost_per_million"] == pytest.approx(1000.0)
    assert tally.lines(figures) == [
        "10 images in 5.0 s: 2.00 images/s, 14 tokens/s",
        "making programs ready took 1 min 30 s before that",
        "a million images would cost 1,000.00",
    ]


@pytest.mark.parametrize("failed", [0, 1, 3])
@pytest.mark.parametrize("seconds", [0.0, 2.0])
def test_runs_that_answer_nothing_have_no_rates_and_no_costs(clock, failed, seconds):
    tally = Tally()
    tally.start(20.0)
    for _ in range(failed):
        tally.add(Record("b", "failed", reason="empty"))
    clock.now += seconds
    figures = tally.summary({"decode": 0.0}, price=3.6)
    assert not {"images_per_s", "tokens_per_s", "cost_per_million"} & figures.keys()
    first, compiling, *reasons = tally.lines(figures)
    assert first == f"{failed} image{'s' * (failed != 1)} in {seconds:.1f} s"
    assert compiling == "making programs ready took 20.0 s before that"
    assert reasons == [f"failed: empty {failed}"] * (failed > 0)


def test_a_summary_has_shares_and_costs():
    tally = Tally()
    tally.add(Record("a", "ok", results=(TEXT,), warnings=("cut off at the token limit", "first of 2 frames")))
    tally.add(Record("b", "failed", reason="empty"))
    figures = tally.summary({"decode": 3.0, "idle": 1.0}, price=3.6)
    assert (figures["images"], figures["failed"], figures["tokens"]) == (2, 1, 7)
    assert figures["stages"] == {"decode": 0.75, "idle": 0.25}
    assert figures["cost_per_million"] == pytest.approx(1000 / figures["images_per_s"])
    text = "\n".join(tally.lines(figures))
    assert "decode 75%" in text and "failed: empty 1" in text and "odd: cut off at the token limit 1" in text
    assert "frames" not in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.21, "4.2 s"), (125, "2 min 05 s"), (3599.7, "1 h 00 min"), (11220, "3 h 07 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_costs():
    assert cost_per_million(100, 3.6) == pytest.approx(10.0)


def test_a_digest_sees_names_settings_and_weights_but_not_the_place(tmp_path):
    def folder(name: str, weights: bytes, **files: bytes):
        root = tmp_path / name
        root.mkdir()
        for file, data in {"model.safetensors": weights, ".git_note": name.encode(), **files}.items():
            (root / file).write_bytes(data)
        return model_digest(root)

    large = bytes(9 << 20)
    digests = {
        folder("a", large),
        folder("other", large[:-1] + b"\1"),
        folder("begin", b"\1" + large[1:]),
        folder("size", large + b"\0"),
        folder("settings", large, **{"config.json": b"{}"}),
    }
    assert len(digests) == 5
    assert folder("b", large) == model_digest(tmp_path / "a")
    assert model_digest(tmp_path / "a" / "model.safetensors") not in digests


def test_parameters_have_one_digest_on_any_mesh(monkeypatch):
    """A run goes on with another; and costs what its devices cost."""
    monkeypatch.setattr(Moondream, "start", lambda _: None)
    family, params = load_model(hub.resolve("shapes"))
    params = jax.tree.map(np.asarray, params)  # which is put in order without being compiled
    other = dataclasses.replace(params, text=dataclasses.replace(params.text, wte=-params.text.wte))
    digests = []
    for given, mesh, devices in ((params, "model=1", 1), (params, "model=2", 2), (other, "model=2", 2)):
        opened = OpenModel(Moondream(given, family.config, cast(Any, None), mesh=mesh), RunOptions())
        digests.append(opened.digest())
        with opened.answering(print) as (_, counted):
            assert counted == devices
    assert digests[0] == digests[1] != digests[2]
    plain = Moondream(jax.device_put(params), family.config, cast(Any, None))
    assert OpenModel(plain, RunOptions()).digest() == digests[0]
