"""What the checkpoints of a family hold, and its files of adapters. No jax at import."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import TYPE_CHECKING, Any, Protocol

from jaxphoton.models.naming import Moved, Placement, Source, Use

if TYPE_CHECKING:
    from jaxphoton.models.protocol import Family


class Tensors(Protocol):
    """What the checkpoints of a model hold, in the words of `jaxphoton.models.naming`.

    Attributes:
      adapters: what files of adapters hold.
    """

    @property
    def adapters(self) -> AdapterNames: ...

    def sources(self, names: Iterable[str]) -> tuple[dict[str, Source], list[str]]:
        """Canonical name -> its source, and the names that are not known; what may be ignored is in neither.

        Raises:
          WeightsError: these are not the tensors of such a model, or two of them are the same one.
        """
        ...

    def fit(self, sources: Mapping[str, Source]) -> tuple[Family, Any, Set[str]]:
        """What the tensors decide: the family as they have it, the form of `Network.abstract`, names to leave out."""
        ...

    def uses(self) -> Mapping[str, Use]:
        """The matrices that may be stored in few bits, by their path, and what they are for."""
        ...

    def placements(self, form: Any) -> tuple[Placement, ...]:
        """Where every tensor goes; together they fill every leaf of `Network.abstract` exactly."""
        ...

    def stored_form(self, leaves: Iterable[str]) -> Any:
        """The form of parameters with leaves of these paths (`jaxphoton.layers.spec.by_path`)."""
        ...

    def moved(self, leaves: Set[str]) -> tuple[Moved, ...]:
        """What has other names today of a converted checkpoint with leaves of these paths; what is moved to a leaf
        fills it."""
        ...


class OneForm:
    """Of `Tensors`, what is so where the settings decide all, and no earlier version stored anything else."""

    def __init__(self, family: Family):
        self._family, self._config = family, family.config

    def fit(self, sources: Mapping[str, Source]) -> tuple[Family, None, Set[str]]:
        """Nothing is left to the tensors."""
        return self._family, None, frozenset()

    def stored_form(self, leaves: Iterable[str]) -> None:
        return None

    def moved(self, leaves: Set[str]) -> tuple[Moved, ...]:
        return ()


class AdapterNames(Protocol):
    """What files of adapters call the modules of a model.

    Attributes:
      shapes: canonical name of each module that can have a pair -> [..., rows, columns] of what the pair stands for;
        leading axes are experts.
      merged: the same of those that are run before a request has its adapter, so that a pair can only be merged into
        their weights.
    """

    shapes: Mapping[str, tuple[int, ...]]
    merged: Mapping[str, tuple[int, ...]]

    def module(self, path: str, /) -> str:
        """The canonical name of the module at a path that a checkpoint of the model would have."""
        ...

    def is_unused(self, module: str) -> bool:
        """Whether a module is in checkpoints and never run: what is added to it changes nothing."""
        ...

    def pair(self, tensor: str) -> tuple[str, str] | None:
        """The canonical module and "a" or "b", of a tensor in a form of adapters that is the family's own."""
        ...
