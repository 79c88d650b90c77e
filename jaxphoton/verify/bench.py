"""The model under test, with what the checks of any family share."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np

from jaxphoton.constraints.grammar import Grammar, State
from jaxphoton.image.crops import Crops
from jaxphoton.image.ways import Resize
from jaxphoton.models.adapters import Adapter
from jaxphoton.models.protocol import Family, Prompt
from jaxphoton.oracle.oracle import Oracle, OracleRequest, Picture
from jaxphoton.requests.settings import Settings
from jaxphoton.requests.tokens import Generation
from jaxphoton.verify.golden import Case, GoldenModel

# Decoding with nothing forbidden and no end: what the golden `decode` case does.
FREE = Grammar({"free": State()})


class Bench:
    """A golden model loaded into this build; `resize` is how its pictures are."""

    def __init__(self, golden: GoldenModel, params: Any, family: Family, resize: Resize = "exact"):
        self.golden, self.params, self.family = golden, params, family
        self._resize: Resize = resize
        self.grammars = {**family.grammars, "free": FREE}
        self._images: dict[str, Picture] = {}

    @cached_property
    def oracle(self) -> Oracle:
        return Oracle(self.params, self.family)

    def image(self, case: Case) -> Picture | None:
        """The picture that the case names; None for text only."""
        index = case.facts.get("image")
        return None if index is None else self.picture(f"image{index}")

    def picture(self, image: str) -> Picture:
        if image not in self._images:
            self._images[image] = self.oracle.encode_image(self.crops(image))
        return self._images[image]

    def crops(self, image: str) -> Crops:
        """The crops of a picture as they are recorded, or as far from them as a fast resize is from the exact one."""
        return self.golden.crops(image, self.recorded(image), self.family.pictures, self._resize)

    def recorded(self, image: str) -> np.ndarray:
        """uint8 [C, S, S, 3], those of a picture in the golden files, perhaps with more behind them."""
        raise NotImplementedError

    def generate(
        self,
        oracle: Oracle,
        prompt: Prompt | Iterable[int],
        image: Picture | None,
        grammar: str,
        max_tokens: int,
        max_objects: int = 1 << 20,
        adapter: Adapter | None = None,
    ) -> Generation:
        """Greedy generation from a prompt, or from the ids behind BOS and image."""
        prompt = prompt if isinstance(prompt, Prompt) else plain_prompt(prompt)
        settings = Settings(temperature=0.0, max_tokens=max_tokens, max_objects=max_objects, seed=0)
        request = OracleRequest(prompt, self.grammars[grammar], settings, image, adapter=adapter)
        return oracle.run(request)


def plain_prompt(ids: Iterable[int]) -> Prompt:
    return Prompt(ids=tuple(int(i) for i in ids), values=())
