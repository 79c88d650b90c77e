"""The model of a run: found, told apart from others, loaded, and put to work."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from jaxphoton.batch.digest import model_digest, params_digest
from jaxphoton.batch.errors import BatchError, OptionError
from jaxphoton.batch.options import AccountOptions, RunOptions
from jaxphoton.batch.workers.gpus import replica_count, replica_gpus
from jaxphoton.batch.workers.inprocess import EngineOptions, LocalAnswerer
from jaxphoton.batch.workers.pool import Replicas
from jaxphoton.config.mesh import MeshError, engine_meshes
from jaxphoton.messages import listed, quoted
from jaxphoton.requests.errors import NoAdapterRoom, UnknownAdapter, UnusableAdapter

if TYPE_CHECKING:  # which imports jax
    from jaxphoton.api import Model
    from jaxphoton.models.adapters import Adapter
    from jaxphoton.models.protocol import Family


Answering = tuple[LocalAnswerer | Replicas, int]


class RunModel(Protocol):
    """What answers a run.

    Attributes:
      name: as people know it.
      settings: what of it changes the results, for the header of the journal.
      adapters: names of those that may be asked for.
    """

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> dict[str, Any]: ...

    @property
    def adapters(self) -> tuple[str, ...]: ...

    def find(self) -> Family:
        """Its settings; it is downloaded if it has to be.

        Raises:
          BatchError: there is no such model, or its settings or the headers of its weights are damaged.
        """
        ...

    def digest(self) -> str:
        """What tells it from others, once it was found.

        Raises:
          BatchError: one of its files cannot be read.
        """
        ...

    def adapter_digests(self, names: Collection[str]) -> dict[str, str]:
        """What tells the adapters of these names from others, once the model was found.

        Raises:
          BatchError: there is none of a name, or it cannot be read, or does not fit the model.
        """
        ...

    def answering(self, log: Callable[[str], None]) -> AbstractContextManager[Answering]:
        """What answers, ready to be asked, and on how many GPUs.

        Args:
          log: takes what several processes have to say.

        Raises:
          BatchError: the model is not usable, or there are fewer GPUs.
        """
        ...


def run_model(
    model: str | os.PathLike[str] | Model | RunModel, options: RunOptions, *, restricted: bool = False
) -> RunModel:
    """The model that is meant by a name, or that is open; a RunModel is what it is.

    Args:
      restricted: whether settings may restrict answers (a schema, choices), for which an open one is ready.

    Raises:
      OptionError: an option that an open one cannot take any more, or what is no model.
    """
    if isinstance(model, (str, os.PathLike)):
        return NamedModel(os.fsdecode(model), options, restricted)
    if hasattr(model, "answering"):
        return model  # type: ignore[return-value]
    if not hasattr(model, "answer"):
        raise OptionError("{model} must be a name or an open Model, not {value}", value=quoted(model))
    return OpenModel(model, options)  # type: ignore[arg-type]


def name_for_clients(name: str) -> str:
    """What a model is called in answers: of a folder its own name, and not where it lies."""
    return os.path.basename(os.path.realpath(name)) if os.path.exists(name) else name


class NamedModel:
    """A folder, a Hugging Face id, or "shapes"."""

    def __init__(self, name: str, options: RunOptions, restricted: bool = False):
        self.name, self._options, self._restricted = name, options, restricted
        self._path: Path | None = None
        self._family: Family | None = None
        self._adapters: dict[str, Adapter] = {}  # that were read

    @property
    def settings(self) -> dict[str, Any]:
        model = self._options.model
        return {
            "pictures": asdict(self._options.pictures),
            "dtype": model.dtype,
            "quantize": model.quantize,
            "deterministic": (model.rows or True) if model.deterministic else False,
        }

    def find(self) -> Family:
        from jaxphoton.config import ConfigError
        from jaxphoton.weights import hub
        from jaxphoton.weights.checkpoint import WeightsError

        try:
            self._path = hub.resolve(self.name, self._options.model.revision)
            self._family = hub.check(self._path)
            return self._family
        except (ConfigError, WeightsError, OSError) as error:
            raise BatchError(f"model {quoted(self.name)}: {error}") from error

    def digest(self) -> str:
        assert self._path is not None
        return _digest(self.name, self._path)

    @property
    def adapters(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self._options.model.adapters)

    def adapter_digests(self, names: Collection[str]) -> dict[str, str]:
        from jaxphoton.weights.adapters import load_adapter
        from jaxphoton.weights.checkpoint import WeightsError

        assert self._family is not None
        paths = dict(self._options.model.adapters)
        for name in [name for name in names if name not in self._adapters]:
            if name not in paths:
                raise _no_adapter(name, paths)
            try:
                self._adapters[name] = load_adapter(paths[name], self._family, name)
            except WeightsError as error:
                raise BatchError(f"adapter {quoted(name)}: {error}") from error
        return {name: self._adapters[name].digest.hex() for name in names}

    @contextmanager
    def answering(self, log: Callable[[str], None]) -> Iterator[Answering]:
        model, account = self._options.model, self._options.account
        meshes = engine_meshes(model.mesh)
        count = replica_count(model.replicas, meshes.copies)
        gpus = (None,) if count == 1 else replica_gpus(count, each=meshes.devices)
        if len(gpus) > 1:
            if account.trace or account.jax_profile:
                raise OptionError("{trace} and {jax_profile} look into one process: give {replicas} 1")
            loading = {"path_or_id": self.name} | self._loading()
            with Replicas(gpus, loading, self._engine(), log=log) as replicas:
                yield replicas, len(gpus) * meshes.devices
            return
        with self._opened() as opened:
            from jaxphoton.platform import calmed_interpreter  # not before: it brings jax

            answerer = LocalAnswerer(opened)
            answerer.start()
            with calmed_interpreter():
                yield answerer, meshes.devices

    def follow(self) -> None:
        """Works for the process that answers with the same model; see `Model.follow`.

        Raises:
          BatchError: there is no such model, or it cannot be loaded.
          EngineError: that process is lost, or a launch failed.
        """
        self.find()
        with self._opened() as opened:
            opened.follow()

    def _opened(self) -> Model:
        # Those that the journal names were read for it.
        adapters = dict(self._options.model.adapters) | self._adapters or None
        opened = load_model(self.name, **self._loading() | {"adapters": adapters})
        opened.engine_config = self._engine().applied(opened.engine_config, opened.family.max_context)
        return opened

    def _engine(self) -> EngineOptions:
        """What the options say about the engine."""
        model = self._options.model
        # Where nothing restricts answers: two programs less to compile, unless all are there.
        masks = False if model.executables is None and not self._restricted else None
        return EngineOptions(
            model.rows, model.depth, model.workers, model.deterministic, model.image_timeout, host_masks=masks
        )

    def _loading(self) -> dict[str, Any]:
        """The arguments of `Model.from_pretrained`; JSON values."""
        model = self._options.model
        given = {name: getattr(model, name) for name in ("revision", "dtype", "quantize", "executables")}
        given |= {"mesh": engine_meshes(model.mesh).mesh}
        given |= asdict(self._options.pictures) | {"adapters": dict(model.adapters) or None}
        return {name: value for name, value in given.items() if value is not None}


class OpenModel:
    """A model in this process, which stays open."""

    def __init__(self, model: Model, options: RunOptions):
        for name in (*options.model.given(), *options.pictures.given()):
            raise OptionError(f"{{{name}}} is said when a model is loaded, and this one is open")
        self._model, self.name = model, str(model.path or "in memory")

    @property
    def settings(self) -> dict[str, Any]:
        engine = self._model.engine_config
        return {
            "pictures": self._model.picture_options,
            "dtype": str(self._model.family.network.dtype(self._model.params)),
            "quantize": way if isinstance(way := self._model.quantize, str | None) else asdict(way),
            "deterministic": engine.max_rows if engine.fixed_shapes else False,
        }

    def find(self) -> Family:
        return self._model.family

    def digest(self) -> str:
        if self._model.path is not None:
            return _digest(str(self._model.path), self._model.path)
        return params_digest(self._model)

    @property
    def adapters(self) -> tuple[str, ...]:
        return tuple(self._model.adapters.registered)

    def adapter_digests(self, names: Collection[str]) -> dict[str, str]:
        try:
            return {name: self._model.adapters.get(name).digest.hex() for name in names}
        except (UnknownAdapter, UnusableAdapter, NoAdapterRoom) as error:
            raise BatchError(str(error)) from error

    @contextmanager
    def answering(self, log: Callable[[str], None]) -> Iterator[Answering]:
        answerer, split = LocalAnswerer(self._model), self._model.split
        answerer.start()
        yield answerer, 1 if split is None else split.devices


def _no_adapter(name: str, there: Iterable[str]) -> BatchError:
    return BatchError(f"there is no adapter {quoted(name)}; there is {listed(there) or 'none'}")


def load_model(name: str, **loading: Any) -> Model:
    """The model of this name.

    Args:
      loading: more arguments of `Model.from_pretrained`; its default for what is None.

    Raises:
      BatchError: there is no such model, its files are not usable, or an adapter finds no room.
    """
    from jaxphoton.api import Model
    from jaxphoton.config import ConfigError
    from jaxphoton.engine.executables import ExecutablesError
    from jaxphoton.prompt.tokenizer import TokenizerError
    from jaxphoton.weights.load import WeightsError

    try:
        return Model.from_pretrained(name, **{name: value for name, value in loading.items() if value is not None})
    except ExecutablesError as error:
        raise BatchError(f"executables: {error}") from error
    except MeshError as error:
        raise BatchError(str(error)) from error
    except (ConfigError, TokenizerError, WeightsError, NoAdapterRoom, OSError) as error:
        raise BatchError(f"model {quoted(name)}: {error}") from error


@contextmanager
def recorded(answerer: LocalAnswerer | Replicas, name: str, account: AccountOptions) -> Iterator[None]:
    """Records what a model in this process does inside, as the options ask.

    Raises:
      BatchError: the trace cannot be written.
    """
    with ExitStack() as stack:
        opened = answerer.model if isinstance(answerer, LocalAnswerer) else None
        if account.trace and opened is not None:
            from jaxphoton.measure.timeline import recording

            try:
                stack.enter_context(recording(opened, Path(account.trace), model=name))
            except OSError as error:
                raise OptionError("{trace} {file}: {fault}", file=account.trace, fault=error.strerror) from error
        if account.jax_profile and opened is not None:
            from jaxphoton.measure.profile import profiling

            stack.enter_context(profiling(opened, Path(account.jax_profile)))
        yield


def _digest(name: str, path: Path) -> str:
    try:
        return model_digest(path)
    except OSError as error:
        raise BatchError(f"model {quoted(name)}: {error}") from error
