"""Many clients at once, some of whom leave or send nonsense; `benchmarks/serve_load.py` does more of it."""

from __future__ import annotations

import asyncio

from benchmarks import serve_load
from jaxphoton.server.listening import Listener, bound
from jaxphoton.server.options import ServerOptions
from tests.server.serving import listening

REQUESTS = 250


def test_every_answer_is_that_of_a_single_request_and_nothing_is_held(service, shapes):
    with bound("127.0.0.1", 0) as place:
        listener = Listener(service, ServerOptions())
        with listening(listener, place):
            address = f"http://127.0.0.1:{place.getsockname()[1]}"
            asks = serve_load.cases(serve_load.PICTURES[:3])
            wanted = asyncio.run(serve_load.single(address, asks))
            found = asyncio.run(serve_load.load(address, asks, wanted, REQUESTS, 16, first=100))
            assert shapes.engine.drain(60)
            assert not found.faults
            assert found.equal > 0.8 * REQUESTS and found.left > 0 and found.refused > 0
            assert found.equal + found.left + found.refused == REQUESTS
            assert listener._loop is not None
            left = asyncio.run_coroutine_threadsafe(tasks(), listener._loop).result(60)
            assert [name for name in left if "Server.serve" not in name] == []
            now = shapes.engine.metrics()
            assert now.running == now.waiting == service.admission.running == 0
            assert now.pages_held == shapes.engine.scheduler.prefixes.evictable


async def tasks() -> list[str]:
    """What has not ended on the loop of the server, once it had a chance to."""
    own = asyncio.current_task()
    for _ in range(20):
        await asyncio.sleep(0)
    return [repr(task) for task in asyncio.all_tasks() if task is not own]
