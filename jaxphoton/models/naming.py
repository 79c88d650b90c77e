"""The words in which a family says what its checkpoints hold: names of tensors, and where each one goes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from jaxphoton.messages import quoted

Index = tuple[int | slice, ...]
Use = Literal["layers", "experts", "head", "vision"]  # of a matrix, as `jaxphoton.config.quantization.Quantization`


class WeightsError(ValueError):
    """Weights that cannot be found, read, or fitted to a model."""


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor of a checkpoint: its name there, whether its two axes are swapped, which half of its rows it is, and
    whether those behind its first axis are columns in their order (of a convolution)."""

    name: str
    transposed: bool = False
    half: int | None = None
    flat: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the canonical tensor `name` goes: `leaf` as a dotted path in the parameters, and the part of it.

    A path is that of `jaxphoton.layers.spec.by_path`. A matrix has a name that ends in ".weight" and a leaf that ends
    in "_w": what it has beside it in few bits is `X.scale` and `X.zero`, in `X_scale` and `X_zero`.
    """

    name: str
    leaf: str
    index: Index = ()


@dataclass(frozen=True, slots=True)
class Moved:
    """Where a part of a leaf that an earlier version stored lies today, in the words of `Placement`."""

    stored: str
    shape: tuple[int, ...]  # of `stored`
    leaf: str
    part: Index = ()  # of `stored`
    index: Index = ()  # of `leaf`


def placed_shape(shape: tuple[int, ...], index: Index) -> tuple[int, ...]:
    """The shape of `leaf[index]` for a leaf of `shape`."""
    head = [len(range(*part.indices(n))) for part, n in zip(index, shape, strict=False) if isinstance(part, slice)]
    return (*head, *shape[len(index) :])


def canonical(
    names: Iterable[str],
    rename: Callable[[str], str | None],
    fused: Mapping[str, tuple[str, ...]] | None = None,
    transposed: Collection[str] = (),
    flat: Collection[str] = (),
) -> tuple[dict[str, Source], list[str]]:
    """Canonical name -> its source, and the names that `rename` does not know.

    Args:
      rename: the canonical name of a tensor, None for an unknown one.
      fused: last part of a canonical name -> those of the tensors that its halves are, in this order.
      transposed: canonical names of tensors whose axes are swapped in the checkpoint.
      flat: of those whose axes behind the first are columns.

    Raises:
      WeightsError: two names mean the same tensor.
    """
    sources: dict[str, Source] = {}
    unknown: list[str] = []
    for name in names:
        found = rename(name)
        if found is None:
            unknown.append(name)
            continue
        for part, half in _halves(found, fused or {}):
            if part in sources:
                raise WeightsError(f"tensors {quoted(sources[part].name)} and {quoted(name)} are both {quoted(part)}")
            sources[part] = Source(name, found in transposed, half, found in flat)
    return sources, unknown


def _halves(name: str, fused: Mapping[str, tuple[str, ...]]) -> list[tuple[str, int | None]]:
    """The canonical names that `name` stands for: its own, or those of the two halves of a fused tensor."""
    front, _, last = name.rpartition(".")
    return [(f"{front}.{part}", half) for half, part in enumerate(fused[last])] if last in fused else [(name, None)]


def linear(name: str, leaf: str, index: Index = ()) -> Iterable[Placement]:
    """The placements of a matrix and its bias."""
    yield Placement(f"{name}.weight", f"{leaf}_w", index)
    yield Placement(f"{name}.bias", f"{leaf}_b", index)
