"""Who is told of what happens: any number of functions, while everything runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

_log = logging.getLogger(__name__)

Observer = Callable[[Any], None]


class Observers:
    """Functions by what they are told of; told on the thread on which it happens, so they must return quickly.

    One that raises is logged and not called again: its fault must not reach the requests.
    """

    def __init__(self, *names: str):
        # Tuples, replaced as a whole: who tells needs no lock.
        self._told: dict[str, tuple[Observer, ...]] = dict.fromkeys(names, ())
        self._lock = threading.Lock()

    def add(self, **observers: Observer | None) -> ExitStack:
        """Adds functions until the returned handle is closed, or its `with` block is left; None adds nothing.

        Raises:
          TypeError: one is no function.
        """
        for name, observer in observers.items():
            if observer is not None and not callable(observer):
                raise TypeError(f"an observer of {name} must be a function, not {type(observer).__name__}")
        handle = ExitStack()
        for name, observer in observers.items():
            if observer is not None:
                self._change(name, lambda told, added=observer: (*told, added))
                handle.callback(partial(self._remove, name, observer))
        return handle

    def tell(self, name: str, what: Any) -> None:
        for observer in self._told[name]:
            try:
                observer(what)
            except Exception:
                _log.exception("an observer of %s raised; it is not called again", name)
                self._remove(name, observer)

    def _remove(self, name: str, observer: Observer) -> None:
        def without(told: tuple[Observer, ...]) -> tuple[Observer, ...]:
            place = next((place for place, each in enumerate(told) if each is observer), len(told))
            return told[:place] + told[place + 1 :]

        self._change(name, without)

    def _change(self, name: str, change: Callable[[tuple[Observer, ...]], tuple[Observer, ...]]) -> None:
        with self._lock:
            self._told[name] = change(self._told[name])
