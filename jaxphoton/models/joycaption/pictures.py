"""RGB picture -> the square that the vision encoder reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from jaxphoton.image.crops import Crops
from jaxphoton.image.resize import resize as resized
from jaxphoton.image.ways import Filter, Resize


@dataclass(frozen=True, slots=True)
class JoyCaptionPictures:
    """`image.crops.Pictures` of one model: the whole picture squashed into one square, as the model's author does it
    ("lanczos"), or with the filter that the processor of Hugging Face has ("bicubic")."""

    size: int
    filter: Filter = "lanczos"

    def settings(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> JoyCaptionPictures:
        return cls(**settings)

    def needed_size(self, height: int, width: int) -> tuple[int, int]:
        return self.size, self.size

    def count(self, height: int, width: int) -> int:
        return 1

    def prepare(self, picture: Image.Image, size: tuple[int, int] | None = None, resize: Resize = "exact") -> Crops:
        if picture.mode != "RGB" or 0 in picture.size:
            raise ValueError(
                f"expected a picture of mode RGB, got {picture.mode} of {picture.width} x {picture.height} pixels"
            )
        return Crops(resized(picture, self.size, self.size, resize, self.filter)[None], (1, 1))
