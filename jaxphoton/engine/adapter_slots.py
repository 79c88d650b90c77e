"""Adapters in the slots of the device's pool: who holds which, and what is put there. No jax.

A slot is told by its adapter's digest. It belongs to the sequences that are admitted with that adapter, and keeps it
when the last of them leaves, until another adapter needs the room.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from jaxphoton.models.adapters import Adapter
from jaxphoton.requests.errors import ModelClosed


@dataclass(slots=True)
class _Held:
    slot: int
    users: int = 0


class AdapterSlots:
    """Slots by digest, reference-counted. Belongs to the engine's thread.

    A slot is entered when the launch that fills it is planned: programs run in order, so whoever is launched later may
    read it.
    """

    def __init__(self, slots: int):
        self.slots = slots
        self._free = list(range(slots - 1, -1, -1))
        self._held: OrderedDict[bytes, _Held] = OrderedDict()  # the one released last at the end

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._held

    @property
    def digests(self) -> tuple[bytes, ...]:
        """Of the adapters in slots, the one that is given up first in front."""
        return tuple(self._held)

    def users(self, digest: bytes) -> int:
        return self._held[digest].users if digest in self._held else 0

    def available(self, digest: bytes) -> bool:
        """Whether `acquire` would give a slot now."""
        return digest in self._held or bool(self._free) or any(not held.users for held in self._held.values())

    def acquire(self, digest: bytes) -> int:
        """The slot of an adapter, which has one more user now. It must be put there first if it was not in one.

        Raises:
          ValueError: all slots have users.
        """
        held = self._held.get(digest)
        if held is None:
            held = self._held[digest] = _Held(self._room())
        held.users += 1
        return held.slot

    def release(self, digest: bytes) -> None:
        """One user less.

        Raises:
          ValueError: it has no user.
        """
        held = self._held.get(digest)
        if held is None or not held.users:
            raise ValueError("this adapter has no user")
        held.users -= 1
        self._held.move_to_end(digest)

    def discard(self, digest: bytes) -> None:
        """Frees the slot of an adapter that was not put there after all; it has no user.

        Raises:
          ValueError: it has one.
        """
        if self._held[digest].users:
            raise ValueError("this adapter has users")
        self._free.append(self._held.pop(digest).slot)

    def _room(self) -> int:
        if self._free:
            return self._free.pop()
        unused = next((digest for digest, held in self._held.items() if not held.users), None)
        if unused is None:
            raise ValueError("all slots have users")
        return self._held.pop(unused).slot


@dataclass(frozen=True, eq=False)
class Staged:
    """What is put in a slot: a tree of arrays, as `Network.adapter_slot` makes them."""

    arrays: Any


class StagedAdapters:
    """Adapters as they are put into slots, made by whoever submits requests, once for all that are alive.

    On the device there are at most `most`, so that a thousand adapters that wait do not fill it: what is beyond goes up
    with the launch that needs it. The `kept` that were asked for last stay without a request.

    Args:
      make: arrays of an adapter on the host; what it raises is raised.
      up: host arrays to the device; returns at once.
    """

    def __init__(self, make: Callable[[Adapter], Any], up: Callable[[Any], Any], kept: int, most: int):
        self._make: Callable[[Adapter], Any] | None = make
        self._up: Callable[[Any], Any] | None = up
        self._kept, self._most = kept, most
        self._lock = threading.Lock()
        self._on_device: WeakValueDictionary[bytes, Staged] = WeakValueDictionary()
        self._on_host: WeakValueDictionary[bytes, Staged] = WeakValueDictionary()
        self._recent: OrderedDict[bytes, Staged] = OrderedDict()

    def get(self, adapter: Adapter) -> Staged:
        """From any thread.

        Raises:
          ModelClosed: it was closed.
        """
        digest = adapter.digest
        with self._lock:
            if self._make is None or self._up is None:
                raise ModelClosed
            staged = self._on_device.get(digest) or self._on_host.get(digest)
            if staged is None:
                arrays = self._make(adapter)
                if len(self._on_device) < self._most:
                    staged = self._on_device[digest] = Staged(self._up(arrays))
                else:
                    staged = self._on_host[digest] = Staged(arrays)
            self._recent[digest] = staged
            self._recent.move_to_end(digest)
            if len(self._recent) > self._kept:
                self._recent.popitem(last=False)
            return staged

    def close(self) -> None:
        """Lets go of all, and of what makes them."""
        with self._lock:
            self._recent.clear()
            self._make = self._up = None
