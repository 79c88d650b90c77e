"""How the server is: for those who start it, watch it and draw it."""

from __future__ import annotations

from typing import Literal

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from jaxphoton import __version__
from jaxphoton.server.admission import State
from jaxphoton.server.operation import Described, Operation
from jaxphoton.server.service import Service


class Health(msgspec.Struct):
    """The answer of /health.

    Attributes:
      status: "ok", or why it is not ready in a word.
      reason: the same at length.
      processes, processes_alive: engine processes, and those of them that answer.
    """

    status: Literal["ok", "starting", "stopping", "failed"]
    live: bool
    ready: bool
    reason: str | None
    model: str
    version: str
    processes: int | None = None
    processes_alive: int | None = None


class Stats(msgspec.Struct):
    """The answer of /v1/stats.

    Attributes:
      state: of the server.
      uptime_s: seconds since it began.
      requests: being answered now.
      answers: of the model so far.
      answers_per_second, output_tokens_per_second: of the last minute.
      rows, running, waiting: sequences that can be decoded at once, that are, and that wait for a row.
      pages, pages_free: of the key/value pool; cached prefixes are not free, and give way.
      processes, processes_alive: engine processes.
    """

    model: str
    state: State
    uptime_s: float
    requests: int
    answers: int
    answers_per_second: float
    output_tokens_per_second: float
    rows: int | None = None
    running: int | None = None
    waiting: int | None = None
    pages: int | None = None
    pages_free: int | None = None
    processes: int | None = None
    processes_alive: int | None = None


def routes(service: Service) -> list[Operation]:
    async def health(request: Request) -> Response:
        state, reason = service.admission.condition()
        ready = state == "ready"
        found = Health("ok" if ready else state, True, ready, reason, service.name, __version__)
        if (now := service.backend.occupancy()) is not None:
            found.processes, found.processes_alive = now.processes, now.alive
        return Response(msgspec.json.encode(found), 200 if ready else 503, media_type="application/json")

    async def stats(request: Request) -> Response:
        return Response(msgspec.json.encode(_stats(service)), media_type="application/json")

    async def metrics(request: Request) -> Response:
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    ready = Described("Whether the server is ready, and why not", answer=Health, also={503: Health}, open=True)
    counts = Described("Counts in the form of Prometheus", answer_type=CONTENT_TYPE_LATEST)
    return [
        Operation("GET", "/health", health, ready),
        Operation("GET", "/v1/stats", stats, Described("What is going on", answer=Stats)),
        Operation("GET", "/metrics", metrics, counts),
    ]


def _stats(service: Service) -> Stats:
    metrics, admission = service.metrics, service.admission
    answers, tokens = metrics.rates()
    state, _ = admission.condition()
    uptime = round(metrics.uptime(), 1)
    stats = Stats(service.name, state, uptime, admission.running, metrics.answers, round(answers, 3), round(tokens, 3))
    if (now := service.backend.occupancy()) is not None:
        stats.rows, stats.running, stats.waiting = now.rows, now.running, now.waiting
        stats.pages, stats.pages_free = now.pages, now.pages - now.pages_held
        stats.processes, stats.processes_alive = now.processes, now.alive
    return stats
