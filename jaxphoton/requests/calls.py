"""Asks that somebody waits for: one result, many, or a text in pieces."""

from __future__ import annotations

import os
import weakref
from collections.abc import Generator, Hashable, Iterable, Iterator
from contextlib import closing, contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

from jaxphoton.requests.answer import BatchItem, Result
from jaxphoton.requests.ask import Ask, Job
from jaxphoton.requests.session import Session, Submitted
from jaxphoton.requests.submitting import Pending
from jaxphoton.requests.tokens import Event

T = TypeVar("T")


def call(session: Session, image: Any, ask: Ask) -> Result | list[Result]:
    """One result, or for a list of images a list of them."""
    if isinstance(image, (list, tuple)):
        return _many(session, image, ask)
    pending = session.submit(image, ask)
    with _given_up_on_leaving(pending):
        return pending.future.result()


def batch(session: Session, images: Iterable[Any], ask: Ask) -> Generator[BatchItem, None, None]:
    """Yields items as they finish; images may be (key, image) pairs.

    Raises:
      TypeError: `images` is one image.
      TypeError, ValueError: what every image would have against it.
      ModelClosed: as `Session.answers`.
    """
    if isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike)):
        raise TypeError(f"images must be an iterable of images, not a single one ({type(images).__name__})")
    session.preparer.prepare(ask)
    return _items(session, images, ask)


def stream_text(session: Session, image: Any, ask: Ask, field: str) -> Result:
    """A result whose `field` is a generator of the pieces of its text; what comes before that is there at once."""
    _check_single(image)
    reasons = session.preparer.prepare(ask).form.reasoning
    pending, events = _listened(session, image, ask)
    result = Result()
    result.seed = pending.seed
    # Not the result itself: it holds the pieces, and whoever drops both must not wait for the garbage collection.
    pieces = _begun(_pieces(pending, events, weakref.ref(result)))
    if reasons:
        try:
            result.update(next(events, None) or pending.future.result())
        except BaseException:
            pieces.close()
            raise
    result[field] = pieces
    return result


def stream_events(session: Session, image: Any, ask: Ask) -> Iterator[Event]:
    """The events of an ask while it is generated; the last is the result, with "completed"."""
    _check_single(image)
    pending, events = _listened(session, image, ask)
    return _begun(_events(pending, events))


def _many(session: Session, images: Iterable[Any], ask: Ask) -> list[Result]:
    results: dict[Hashable, Result] = {}
    # Pairs, so that an image that is itself a tuple keeps its position as key.
    with closing(batch(session, enumerate(images), ask)) as items:
        for position, result, error in items:
            if error is not None:
                raise error
            assert result is not None
            results[position] = result
    return [results[position] for position in range(len(results))]


def _items(session: Session, images: Iterable[Any], ask: Ask) -> Generator[BatchItem, None, None]:
    pairs = (
        item if isinstance(item, tuple) and len(item) == 2 else (position, item) for position, item in enumerate(images)
    )
    jobs = (Job(key, image, (ask,)) for key, image in pairs)
    with closing(session.answers(jobs)) as answers:
        for answer in answers:
            yield BatchItem(answer.key, answer.results[0] if answer.results else None, answer.error)


def _check_single(image: Any) -> None:
    if isinstance(image, (list, tuple)):
        raise ValueError("stream=True takes one image")


def _listened(session: Session, image: Any, ask: Ask) -> tuple[Submitted, Iterator[Event]]:
    events: SimpleQueue[Event | None] = SimpleQueue()
    pending = session.submit(image, ask, events.put)
    pending.future.add_done_callback(lambda _: events.put(None))
    return pending, iter(events.get, None)


def _pieces(pending: Pending, events: Iterator[Event], result: weakref.ref[Result]) -> Generator[str, None, None]:
    with _given_up_on_leaving(pending):
        yield ""  # see `_begun`
        for event in events:
            yield event["chunk"]
        ended = pending.future.result()
        if (kept := result()) is not None:
            kept.complete(ended)


def _events(pending: Pending, events: Iterator[Event]) -> Generator[Event, None, None]:
    with _given_up_on_leaving(pending):
        yield {}  # see `_begun`
        yield from events
        result = pending.future.result()
        result["completed"] = True
        yield result


@contextmanager
def _given_up_on_leaving(pending: Pending) -> Iterator[None]:
    """Who stops reading, or is interrupted while it waits, gives the rest of an ask up."""
    try:
        yield
    finally:
        if not pending.future.done():
            pending.cancel()


def _begun(pieces: Generator[T, None, None]) -> Generator[T, None, None]:
    """A generator taken to its first, empty piece: from here on it cleans up even if it is dropped unread."""
    next(pieces)
    return pieces
