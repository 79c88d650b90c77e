"""Reading a bounded way ahead, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def read_ahead(
    items: Iterable[In],
    read: Callable[[In], Out],
    slow: Callable[[In], bool],
    threads: int = 16,
) -> Iterator[Out]:
    """`read(item)` of every item, in their order; the slow ones in threads, twice as many at a time as there are
    threads. Closing the iterator waits for those under way."""
    waiting: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="jaxphoton-read") as pool:
        try:
            for item in items:
                if slow(item):
                    waiting.append(pool.submit(read, item))
                elif waiting:
                    waiting.append(_done(read(item)))
                else:
                    yield read(item)
                while waiting and (waiting[0].done() or len(waiting) >= 2 * threads):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _done(value: Out) -> Future[Out]:
    future: Future[Out] = Future()
    future.set_result(value)
    return future
