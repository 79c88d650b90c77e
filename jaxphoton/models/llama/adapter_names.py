"""What files of adapters call the modules of a model around this decoder: what its checkpoints call them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jaxphoton.models.naming import Placement, placed_shape

_IN_DECODER = re.compile(r"\w+\.layers\.\d+\..*")  # canonical names of the others have more parts in front


class LlamaAdapterNames:
    """`models.tensors.AdapterNames` of one model: PEFT's files have these modules, and there are no other forms.

    Args:
      placements: of a checkpoint.
      leaves: the parameters by path (`jaxphoton.layers.spec.by_path`).
      tensor: the canonical name of a checkpoint's tensor.
      is_unused: whether a tensor, by its canonical name, is never run.
    """

    def __init__(
        self,
        placements: Iterable[Placement],
        leaves: Mapping[str, Any],
        tensor: Callable[[str], str],
        is_unused: Callable[[str], bool],
    ):
        self._tensor, self._is_unused = tensor, is_unused
        linear = {
            place.name.removesuffix(".weight"): placed_shape(leaves[place.leaf].shape, place.index)
            for place in placements
            if place.leaf.endswith("_w") and not place.leaf.endswith(("patch_w", "lm_head_w"))
        }
        self.shapes: Mapping[str, tuple[int, ...]] = {n: s for n, s in linear.items() if _IN_DECODER.fullmatch(n)}
        self.merged: Mapping[str, tuple[int, ...]] = {n: s for n, s in linear.items() if n not in self.shapes}

    def module(self, path: str) -> str:
        return self._tensor(f"{path}.weight").removesuffix(".weight")

    def is_unused(self, module: str) -> bool:
        return self._is_unused(f"{module}.weight")

    def pair(self, tensor: str) -> tuple[str, str] | None:
        return None
