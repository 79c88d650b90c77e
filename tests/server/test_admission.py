"""Who is let in, and for how long those are sent away that are not."""

from __future__ import annotations

import httpx2 as httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.bodies.faults import BodyError
from jaxphoton.requests.answer import Result
from jaxphoton.requests.errors import QueueFull
from jaxphoton.server.admission import Admission
from jaxphoton.server.service import Service
from tests.server.serving import FakeBackend
from tests.server.test_streams import asked, ready


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def admission(most: int, clock) -> Admission:
    found = Admission(most, clock=clock)
    found.become("ready")
    return found


@given(st.integers(1, 40), st.lists(st.floats(0, 100), min_size=1, max_size=200))
def test_retry_after_is_the_time_for_those_under_way_at_the_measured_rate(most, gaps):
    clock = Clock()
    found = admission(most, clock)
    inside = [found.entered() for _ in range(most)]
    for each in inside:
        each.__enter__()
    for gap in gaps:  # one ends, and another takes its place
        clock.now += gap
        inside.pop(0).__exit__(None, None, None)
        inside.append(found.entered())
        inside[-1].__enter__()
    last = gaps[-64:]
    wanted = most * sum(last) / len(last)
    assert 1 <= found.retry_after() <= 120
    assert found.retry_after() == pytest.approx(max(1, min(120, wanted)), abs=1.01)


def test_an_idle_hour_does_not_lengthen_it():
    clock = Clock()
    found = admission(1, clock)
    for _ in range(3):
        with found.entered():
            clock.now += 2
        clock.now += 3600
    with found.entered():
        assert found.retry_after() == 2


def test_no_more_than_so_many_are_let_in():
    found = admission(2, Clock())
    with found.entered(), found.entered():
        with pytest.raises(BodyError) as refused, found.entered():
            raise AssertionError
        assert refused.value.status == 429
    with found.entered():
        assert found.running == 1
    assert found.running == 0


def test_more_than_may_wait_get_429_before_their_body_is_read(serve):
    backend = FakeBackend("wait", Result(caption="done"))
    service = ready(backend)
    address = serve(service)
    held = [asked(address, "/v1/caption", {"image_url": "AAAA"}) for _ in range(backend.most_requests)]
    assert all(backend.arrived.acquire(timeout=60) for _ in held)
    answer = httpx.post(f"{address}/v1/caption", content=b"no JSON", timeout=60)
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "queue_full"
    assert 1 <= int(answer.headers["retry-after"]) <= 120
    backend.released.set()
    for each in held:
        assert each.recv(65536).startswith(b"HTTP/1.1 200")
        each.close()
    assert httpx.post(f"{address}/v1/caption", json={"image_url": "AAAA"}, timeout=60).status_code == 200


def test_a_full_engine_says_so_in_the_same_way(serve):
    answer = httpx.post(
        f"{serve(ready(FakeBackend(QueueFull('full'))))}/v1/caption", json={"image_url": "AAAA"}, timeout=60
    )
    assert answer.status_code == 429 and "retry-after" in answer.headers


def test_nothing_is_let_in_before_it_is_ready_and_after_it_has_failed(serve):
    backend = FakeBackend()
    service = Service(backend, ["fake"])
    address = serve(service)

    def codes() -> tuple:
        health = httpx.get(f"{address}/health")
        answer = httpx.post(f"{address}/v1/caption", json={"image_url": "AAAA"}, timeout=60)
        error = answer.json().get("error", {"code": None})
        return health.status_code, health.json()["status"], answer.status_code, error["code"]

    assert codes() == (503, "starting", 503, "starting")
    service.start()
    assert codes() == (200, "ok", 200, None)
    backend.failure = "a loop that broke"
    assert codes() == (503, "failed", 503, "engine_failed")
    assert httpx.get(f"{address}/health").json()["reason"] == "a loop that broke"
