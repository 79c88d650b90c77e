"""Reading a bounded way ahead."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

# Items that may be handed on behind one that is not there yet: whoever wants their results in order has to hold those.
WINDOW = 4096


def read_ahead(
    items: Iterable[In],
    read: Callable[[In], Out],
    slow: Callable[[In], bool],
    threads: int = 48,
    window: int = WINDOW,
) -> Generator[tuple[int, Out], None, None]:
    """(place, `read(item)`) of every item, each as soon as it is there: one that takes long holds up no other, until
    `window` items have gone past it. The slow ones are read in threads, and as many of them are held at most. Closing
    the iterator waits for those under way.

    Args:
      threads: so many that do not answer stop all reading until they are given up.
    """
    done: SimpleQueue[Future[Out]] = SimpleQueue()
    under_way: dict[Future[Out], int] = {}  # in the order of their places

    def take() -> tuple[int, Out]:
        future = done.get()
        return under_way.pop(future), future.result()

    with ThreadPoolExecutor(threads, thread_name_prefix="jaxphoton-read") as pool:
        try:
            for place, item in enumerate(items):
                while under_way and place - next(iter(under_way.values())) >= window:
                    yield take()
                if slow(item):
                    future = pool.submit(read, item)
                    under_way[future] = place
                    future.add_done_callback(done.put)
                else:
                    yield place, read(item)
                while len(under_way) >= threads or not done.empty():
                    yield take()
            while under_way:
                yield take()
        finally:
            for future in under_way:
                future.cancel()
