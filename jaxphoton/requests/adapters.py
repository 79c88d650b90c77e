"""The adapters of a model, by the names under which they are asked for."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from jaxphoton.config import EngineConfig
from jaxphoton.messages import listed, quoted
from jaxphoton.models.naming import WeightsError
from jaxphoton.requests.adapter_folder import AdapterFolder, check_name
from jaxphoton.requests.errors import NoAdapterRoom, UnknownAdapter, UnusableAdapter

if TYPE_CHECKING:
    from jaxphoton.models.adapters import Adapter

KEPT = 32  # of those found in a folder
SLOTS = 4  # on the device, where nobody says how many
LEAST_RANK = 8
FOLDER_RANK = 32  # where nobody knows what will be asked for: the most that Photon takes

Path = str | os.PathLike[str]
GivenAdapters: TypeAlias = "Mapping[str, Path | Adapter] | None"


class Load(Protocol):
    """Reads the adapter of a path; raises WeightsError."""

    def __call__(self, path: Path, *, name: str) -> Adapter: ...


class KnownAdapters(Protocol):
    """Which adapters may be asked for."""

    def __contains__(self, name: object, /) -> bool:
        """May look into a folder."""
        ...

    def names(self) -> tuple[str, ...]:
        """Those that were registered, then those in the folder."""
        ...


class AdapterRegistry:
    """The adapters of one model; from any thread.

    Those of a folder are read when they are first asked for, and not again while they are among the last `KEPT`.

    Args:
      load: reads them.
      folder: where names are looked for that are not registered.
    """

    def __init__(self, load: Load, folder: AdapterFolder | None = None):
        self._load, self._folder = load, folder
        self._lock, self._reading = threading.Lock(), threading.Lock()
        self._registered: dict[str, Adapter] = {}
        self._kept: OrderedDict[str, Adapter] = OrderedDict()
        self._check: Callable[[str, Adapter], None] = lambda name, adapter: None

    def limit(self, check: Callable[[str, Adapter], None]) -> None:
        """Has what is found in the folder from now on refused that `check` raises ValueError for."""
        self._check = check

    def read(self, name: str, adapter: Path | Adapter) -> Adapter:
        """An adapter that may be registered under a name.

        Raises:
          TypeError, ValueError: the name is none, or what is no adapter.
          WeightsError: the adapter cannot be read, or does not fit the model.
        """
        check_name(name)
        if isinstance(adapter, (str, os.PathLike)):
            return self._load(adapter, name=name)
        if not hasattr(adapter, "pairs"):
            raise TypeError(f"adapter {quoted(name)} must be a path or an Adapter, not {type(adapter).__name__}")
        return adapter

    def register(self, name: str, adapter: Adapter) -> None:
        """Adds an adapter, or puts it in the place of another one of this name; who has asked already keeps that."""
        with self._lock:
            self._registered[name] = adapter

    def forget(self, name: str) -> None:
        """Raises UnknownAdapter: it is not registered."""
        with self._lock:
            if self._registered.pop(name, None) is None:
                raise UnknownAdapter(f"no adapter {quoted(name)} was registered")

    def get(self, name: str) -> Adapter:
        """The adapter of a name; it may be read for that.

        Raises:
          UnknownAdapter: there is none.
          UnusableAdapter: it is in the folder, and cannot be read, or does not fit the model.
          NoAdapterRoom: it is in the folder, and the engine has no room for its rank.
        """
        if (found := self._known(name)) is not None:
            return found
        path = None if self._folder is None else self._folder.find(name)
        if path is None:
            raise no_adapter(name, self)
        with self._reading:  # so that nobody reads what is just being read
            if (found := self._known(name)) is not None:
                return found
            try:
                found = self._load(path, name=name)
            except (WeightsError, OSError) as error:
                raise UnusableAdapter(f"adapter {quoted(name)} cannot be used: {error}") from error
            self._check(name, found)
            with self._lock:
                self._kept[name] = found
                if len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
        return found

    @property
    def registered(self) -> dict[str, Adapter]:
        """Those that are, by name."""
        with self._lock:
            return dict(self._registered)

    @property
    def has_folder(self) -> bool:
        return self._folder is not None

    def names(self) -> tuple[str, ...]:
        """See `KnownAdapters`."""
        return _names(self.registered, self._folder)

    def __contains__(self, name: object) -> bool:
        # What was found once needs no look at the disk: a request asks this of every model's name.
        return self._known(name) is not None or (self._folder is not None and self._folder.find(name) is not None)

    def _known(self, name: Any) -> Adapter | None:
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._registered.get(name) or self._kept.get(name)


class AdapterPlaces:
    """The adapters of models in other processes, where only their names are needed: `KnownAdapters`.

    Args:
      given: those that are registered there.
      folder: see `AdapterRegistry`.
    """

    def __init__(self, given: tuple[str, ...], folder: AdapterFolder | None = None):
        self._given, self._folder = given, folder

    def names(self) -> tuple[str, ...]:
        return _names(self._given, self._folder)

    def __contains__(self, name: object) -> bool:
        return name in self._given or (self._folder is not None and self._folder.find(name) is not None)


def with_room(engine: EngineConfig, adapters: AdapterRegistry, rank_of: Callable[[Adapter], int]) -> EngineConfig:
    """The engine's settings with room for the adapters that there are, unless they have some already; from now on they
    are the limit of those in the folder.

    Raises:
      NoAdapterRoom: one that is registered needs more.
    """
    ranks = {name: rank_of(adapter) for name, adapter in adapters.registered.items()}
    if not engine.adapter_slots and (ranks or adapters.has_folder):
        rank = max(LEAST_RANK, FOLDER_RANK if adapters.has_folder else 1, *ranks.values())
        slots = SLOTS if adapters.has_folder else min(len(ranks), SLOTS)
        engine = dataclasses.replace(engine, adapter_slots=slots, adapter_rank=1 << (rank - 1).bit_length())
    for name, rank in ranks.items():
        check_room(name, rank, engine)
    adapters.limit(lambda name, adapter: check_room(name, rank_of(adapter), engine))
    return engine


def check_room(name: str, rank: int, engine: EngineConfig) -> None:
    """
    Raises:
      NoAdapterRoom: an engine of these settings takes no adapter of this rank.
    """
    if not engine.adapter_slots:
        fault = "finds no room: the engine has none for adapters. Load the model with adapters="
        raise NoAdapterRoom(f"adapter {quoted(name)} {fault}, or give EngineConfig.adapter_slots")
    if rank > engine.adapter_rank:
        fault = f"has rank {rank}, and the engine takes up to {engine.adapter_rank}"
        raise NoAdapterRoom(f"adapter {quoted(name)} {fault}: give a larger adapter_rank (--adapter-rank)")


def named(adapters: Any) -> Mapping[str, Any]:
    """Adapters as they are given, by name.

    Raises:
      TypeError: it is no mapping.
    """
    if not isinstance(adapters, (Mapping, type(None))):
        raise TypeError(f"adapters must be a mapping from names to paths, not {type(adapters).__name__}")
    return adapters or {}


def no_adapter(name: str, there: KnownAdapters) -> UnknownAdapter:
    """What those are told that ask for an adapter which is not there."""
    names = there.names()
    known = f"there is {listed(names)}" if names else "there are none"
    return UnknownAdapter(f"there is no adapter {quoted(name)} here; {known}")


def _names(registered: dict[str, Adapter] | tuple[str, ...], folder: AdapterFolder | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*registered, *(() if folder is None else folder.names()))))
