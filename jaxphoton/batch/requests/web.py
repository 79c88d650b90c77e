"""Pictures from the web for threads, which wait for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxphoton.batch.requests.pictures import Fetch


@contextmanager
def web_pictures(**limits: Any) -> Iterator[Fetch]:
    """Fetches pictures as long as it is open, as `bodies.fetching.Fetcher` does.

    Args:
      limits: of the fetcher.
    """
    from jaxphoton.bodies.fetching import Fetcher  # aiohttp

    fetcher, loop = Fetcher(**limits), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="jaxphoton-web", daemon=True)
    thread.start()
    try:
        yield lambda url, param: asyncio.run_coroutine_threadsafe(fetcher.fetch(url, param), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
