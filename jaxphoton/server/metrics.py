"""What is counted: for Prometheus, and the rates of the last minute."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jaxphoton.requests.answer import Result
from jaxphoton.server.backend import Occupancy

WINDOW_S = 60.0
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120)


class Metrics:
    """Counts for one service. Of one event loop.

    Args:
      occupancy: what requests hold now.
      running: requests that the server works for.

    Attributes:
      answers: of the model so far.
    """

    def __init__(self, occupancy: Callable[[], Occupancy | None], running: Callable[[], int]):
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "jaxphoton_http_requests", "Requests.", ("route", "method", "status"), registry=registry
        )
        self._duration = Histogram(
            "jaxphoton_http_duration_seconds",
            "From the request to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._input = Counter("jaxphoton_input_tokens", "Positions of prompts, images included.", registry=registry)
        self._output = Counter("jaxphoton_output_tokens", "Generated tokens.", registry=registry)
        self._first = Histogram(
            "jaxphoton_first_token_seconds",
            "From the picture to the first token: preparing it, waiting, and the prompt.",
            buckets=_SECONDS,
            registry=registry,
        )
        registry.register(_Gauges(occupancy, running))
        self._began = time.monotonic()
        self.answers = 0
        self._ended: deque[tuple[float, int]] = deque()  # when, and how many tokens

    def answered(self, result: Result) -> None:
        """Counts an answer of the model."""
        now, metrics = time.monotonic(), result.metrics
        tokens = len(result.tokens)
        self.answers += 1
        self._output.inc(tokens)
        self._ended.append((now, tokens))
        while now - self._ended[0][0] > WINDOW_S:
            self._ended.popleft()
        if metrics is not None:
            self._input.inc(metrics.input_tokens)
            self._first.observe(metrics.prepare + metrics.queue + metrics.prefill)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts a request of HTTP whose answer has ended."""
        self._requests.labels(route, method, str(status)).inc()
        self._duration.labels(route).observe(seconds)

    def uptime(self) -> float:
        """Seconds since this was made."""
        return time.monotonic() - self._began

    def rates(self) -> tuple[float, float]:
        """Answers and tokens a second, of the last minute."""
        now = time.monotonic()
        span = min(WINDOW_S, max(now - self._began, 1e-3))
        recent = [tokens for when, tokens in self._ended if now - when <= WINDOW_S]
        return len(recent) / span, sum(recent) / span

    def text(self) -> bytes:
        """All of it in the form of Prometheus."""
        return generate_latest(self._registry)


class _Gauges(Collector):
    def __init__(self, occupancy: Callable[[], Occupancy | None], running: Callable[[], int]):
        self._occupancy, self._running = occupancy, running

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("jaxphoton_http_running", "Requests that are being answered.", self._running())
        now = self._occupancy()
        if now is None:
            return
        for name, help, value in (
            ("rows", "Sequences that can be decoded at once.", now.rows),
            ("rows_running", "Sequences that are being decoded.", now.running),
            ("requests_waiting", "Requests that wait for a row.", now.waiting),
            ("pages", "Pages of keys and values.", now.pages),
            ("pages_free", "Pages of them that hold nothing.", now.pages - now.pages_held),
            ("processes_alive", "Engine processes that answer.", now.alive),
        ):
            yield GaugeMetricFamily(f"jaxphoton_{name}", help, value)
