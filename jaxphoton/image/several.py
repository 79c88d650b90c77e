"""Several pictures in place of one, for an ask that has more than one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from jaxphoton.image.errors import ImageError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SeveralImages:
    """The pictures of one ask, in the order in which they stand in it: goes wherever an image goes.

    Attributes:
      images: each as it would be given alone.
    """

    images: tuple[Any, ...]

    def each(self, function: Callable[[Any], T]) -> list[T]:
        """A function of each; an ImageError that it raises says which picture it is about."""
        done = list[T]()
        for image in self.images:
            with _numbered(len(done), len(self.images)):
                done.append(function(image))
        return done


def gathered(futures: Sequence[Future[T]]) -> Future[list[T]]:
    """The results of futures, at least one, in their order, once all are done; or the first error among them, that
    says which picture it is about if it is an ImageError. Cancelling it cancels what has not begun."""
    whole: Future[list[T]] = Future()
    parts, lock, left = list(futures), threading.Lock(), [len(futures)]

    def ended(_: Future[T]) -> None:
        with lock:
            left[0] -= 1
            if left[0]:
                return
        if whole.set_running_or_notify_cancel():
            try:
                whole.set_result(SeveralImages(tuple(parts)).each(lambda part: part.result()))
            except (Exception, CancelledError) as error:
                whole.set_exception(error)
        parts.clear()  # they know `whole`: no circle is to keep pictures

    def cancel(whole: Future[list[T]]) -> None:
        if whole.cancelled():
            for part in list(parts):
                part.cancel()

    whole.add_done_callback(cancel)
    for future in futures:
        future.add_done_callback(ended)
    return whole


@contextmanager
def _numbered(index: int, count: int) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        raise ImageError(error.source, error.reason, f"picture {index + 1} of {count}: {error.fault}") from error
