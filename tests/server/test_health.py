"""What is counted and told: /metrics, /v1/stats, /health."""

from __future__ import annotations

import httpx2 as httpx
from prometheus_client.parser import text_string_to_metric_families

from jaxphoton.engine.metrics import RequestMetrics
from jaxphoton.requests.answer import Result
from jaxphoton.server.service import Service
from tests.image.pools import until
from tests.server.serving import FakeBackend

BODY = {"image_url": "AAAA"}


def counted(address: str) -> dict[tuple, float]:
    """Every sample by its name and the values of its labels."""
    text = httpx.get(f"{address}/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


class Told(FakeBackend):
    """Answers with counts of what it took."""

    async def events(self, image, ask):
        async for event in super().events(image, ask):
            if isinstance(event, Result):
                event.tokens = (1, 2, 3)
                event.metrics = RequestMetrics(0.0, 0.25, 0.5, 1.0, 2.0, 3.5, 70, 0, 3, 0)
            yield event


def test_requests_and_tokens_are_counted(serve):
    service = Service(Told(), ["fake"])
    service.start()
    address = serve(service)
    for body in (BODY, BODY | {"stream": True}, {}):
        httpx.post(f"{address}/v1/caption", json=body)
    # Counted when it has ended, which its client may see a little earlier.
    until(lambda: counted(address)["jaxphoton_http_duration_seconds_count", "/v1/caption"] == 3, "three requests")
    found = counted(address)
    assert found["jaxphoton_http_requests_total", "POST", "/v1/caption", "200"] == 2
    assert found["jaxphoton_http_requests_total", "POST", "/v1/caption", "400"] == 1
    assert found["jaxphoton_output_tokens_total",] == 6
    assert found["jaxphoton_input_tokens_total",] == 140
    assert found["jaxphoton_first_token_seconds_sum",] == 2 * (0.25 + 0.5 + 1.0)
    assert found["jaxphoton_rows",] == 4 and found["jaxphoton_pages_free",] == 100
    stats = httpx.get(f"{address}/v1/stats").json()
    assert stats["answers"] == 2 and stats["requests"] == 0 and stats["output_tokens_per_second"] > 0


def test_nobody_can_make_series_without_end(serve):
    service = Service(FakeBackend(), ["fake"])
    address = serve(service)
    httpx.get(f"{address}/v1/models/x")
    httpx.request("BREW", f"{address}/health")
    httpx.get(f"{address}/0")
    before = set(counted(address))
    for number in range(5):
        httpx.get(f"{address}/{number}")
        httpx.get(f"{address}/v1/models/{number}")
        httpx.request(f"BREW{number}", f"{address}/health")
    assert set(counted(address)) - before <= {key for key in counted(address) if "/metrics" in key}


def test_a_server_without_an_engine_is_alive_but_not_ready(serve):
    class Starting(FakeBackend):
        def occupancy(self):
            return None

    address = serve(Service(Starting(), ["fake"]))
    health = httpx.get(f"{address}/health")
    assert health.status_code == 503
    assert health.json().items() >= {"status": "starting", "live": True, "ready": False, "reason": "compiling"}.items()
    assert httpx.get(f"{address}/v1/stats").json()["rows"] is None
    assert ("jaxphoton_rows",) not in counted(address)
