"""Loads through the whole engine: nothing is lost, full queues refuse, figures add up."""

from __future__ import annotations

import dataclasses
import itertools
import threading

import pytest

from jaxphoton import Moondream
from jaxphoton.measure.throughput import Load, bursts, poisson, synthetic_images

SETTINGS = {"temperature": 0.0, "max_tokens": 3}


@pytest.fixture(scope="module")
def model():
    model = Moondream.from_pretrained("shapes")
    model.engine_config = dataclasses.replace(model.engine_config, max_waiting=4)
    with model:
        yield model


@pytest.fixture(scope="module")
def load(model) -> Load:
    load = Load(model, lambda asked, image: asked.caption(image, settings=SETTINGS))
    load.warm_up(synthetic_images(2, 64, 48))
    return load


def test_a_closed_load_finishes_everything_and_compiles_nothing(load):
    report = load.closed(synthetic_images(6, 64, 48, seed=1), concurrency=3)
    assert (report.requests, report.finished, report.refused, report.failed) == (6, 6, 0, 0)
    assert report.compiled == 0
    assert 1 <= report.tokens_per_request <= 3
    assert report.first_token_ms["p50"] <= report.total_ms["p50"] <= report.total_ms["p99"]
    assert sum(report.shares.values()) == pytest.approx(1, abs=0.05)


def test_a_burst_beyond_the_bound_is_refused_and_nothing_is_lost(load, model, monkeypatch):
    room = model.engine_config.max_waiting + model.engine_config.max_rows
    images = [model.encode_image(image) for image in synthetic_images(room + 5, 64, 48, seed=2)]
    engine, asked, all_asked = model.engine, itertools.count(1), threading.Event()
    submit, prefill = engine.submit, engine.pipeline.device.prefill

    def counting(*arguments):
        try:
            return submit(*arguments)
        finally:
            if next(asked) == room + 5:
                all_asked.set()

    def patient(plan):
        assert all_asked.wait(60)
        return prefill(plan)

    monkeypatch.setattr(engine, "submit", counting)
    monkeypatch.setattr(engine.pipeline.device, "prefill", patient)
    report = load.open(images, itertools.repeat(0.0))
    assert (report.requests, report.finished, report.refused, report.failed) == (room + 5, room, 5, 0)


def test_broken_images_are_counted(load):
    report = load.closed([*synthetic_images(1, 64, 48, seed=3), b"no image"], concurrency=2)
    assert (report.finished, report.failed) == (1, 1)


def test_arrivals_have_the_rate_asked_for():
    for times in (poisson(50, seed=1), bursts(50, 8, seed=1)):
        first = list(itertools.islice(times, 4000))
        assert first == sorted(first)
        assert 4000 / first[-1] == pytest.approx(50, rel=0.15)
    together = list(itertools.islice(bursts(10, 4), 8))
    assert len(set(together)) == 2
