"""The resize of a picture: two passes of our own, width first, then height, with 8 bits in between.

Each pass rounds and clips to 8 bits, so their order shows in the pixels, and Pillow 13 chooses it by the shape. Width
first is what earlier releases did with nearly every picture.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from jaxphoton.image.ways import Filter, Resize, check_resize

# A picture one pixel wide and millions high is not widened before it is made lower: pixels, of 4 bytes each.
_MAX_BETWEEN = 1 << 27


def resize(
    picture: Image.Image, height: int, width: int, how: Resize = "exact", filter: Filter = "lanczos"
) -> np.ndarray:
    """uint8 [height, width, 3] of a loaded picture of mode RGB, which is not changed.

    Raises:
      ValueError: "fast" where it cannot be had (`check_resize`).
    """
    one_pass, last_pass = _exact_passes(filter) if how == "exact" else _fast_passes(filter)
    if width * picture.height > _MAX_BETWEEN:
        picture = one_pass(picture, (picture.width, height))
    if width != picture.width:
        picture = one_pass(picture, (width, picture.height))
    return np.asarray(picture) if height == picture.height else last_pass(picture, height)


Passes = tuple[Callable[[Image.Image, tuple[int, int]], Image.Image], Callable[[Image.Image, int], np.ndarray]]


def _exact_passes(filter: Filter) -> Passes:
    resample = Image.Resampling.LANCZOS if filter == "lanczos" else Image.Resampling.BICUBIC

    def one_pass(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
        return picture.resize(size, resample)

    return one_pass, lambda picture, height: np.asarray(one_pass(picture, (picture.width, height)))


def _fast_passes(filter: Filter) -> Passes:
    """They take what the exact ones take."""
    check_resize("fast")
    from cykooz_resizer import FilterType, ResizeAlg, ResizeOptions, Resizer

    # Pillow's BICUBIC is the spline of Catmull and Rom.
    kind = FilterType.lanczos3 if filter == "lanczos" else FilterType.catmull_rom
    options = ResizeOptions(ResizeAlg.convolution(kind), use_alpha=False)
    # One for each picture: it has no threads of its own, and lets one caller in at a time.
    resizer = Resizer()

    def one_pass(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
        resized = Image.new("RGB", size, None)
        resizer.resize_pil(picture, resized, options)
        return resized

    def last_pass(picture: Image.Image, height: int) -> np.ndarray:
        # Pillow has 4 bytes a pixel. Between rows colours do not matter, so this pass goes over the 3 of an array, in
        # which the result is wanted, as if they were pixels of grey.
        resized = np.empty((height, picture.width, 3), np.uint8)
        resizer.resize_pil(_grey(np.asarray(picture)), _grey(resized), options)
        return resized

    return one_pass, last_pass


def _grey(pixels: np.ndarray) -> Image.Image:
    """The memory of a uint8 [height, width, 3] as a picture of mode L, three times as wide."""
    height, width, _ = pixels.shape
    return Image.frombuffer("L", (3 * width, height), pixels, "raw", "L", 0, 1)
