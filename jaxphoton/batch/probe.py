"""What the headers of the first images of a run tell about all of them."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import IO

from PIL import Image

from jaxphoton.batch.sources.item import Item
from jaxphoton.batch.sources.selection import read_ahead
from jaxphoton.files import open_regular
from jaxphoton.image import png
from jaxphoton.image.errors import ImageError, diagnose
from jaxphoton.image.formats import identify, open_image
from jaxphoton.image.pillow import orientation_of
from jaxphoton.models.protocol import Pictures

_HEAD_BYTES = 300


@dataclass(slots=True)
class Probe:
    """The first images of a run.

    Attributes:
      probed: how many.
      crops: images by their number of crops.
      pixels: of all images that can be read, together.
      largest: (width, height) of the one with the most pixels.
      reasons: images that would fail, as far as headers tell.
    """

    probed: int = 0
    crops: Counter[int] = field(default_factory=Counter)
    pixels: int = 0
    largest: tuple[int, int] = (0, 0)
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def mean_crops(self) -> float:
        """Of an image that can be read; 0 if none can."""
        return sum(crops * images for crops, images in self.crops.items()) / max(1, self.crops.total())

    def lines(self) -> Iterator[str]:
        """For people."""
        if self.crops:
            width, height = self.largest
            pixels = self.pixels / self.crops.total() / 1e6
            yield f"{pixels:.2f} megapixels each on average, the largest {width} x {height}"
            histogram = ", ".join(f"{crops}: {number:,}" for crops, number in sorted(self.crops.items()))
            yield f"{self.mean_crops:.1f} crops each on average (crops: images {histogram})"
        if self.reasons:
            yield "cannot be used: " + ", ".join(f"{name} {n:,}" for name, n in self.reasons.most_common())


def probe(items: Iterable[Item], pictures: Pictures, max_pixels: int, most: int) -> Probe:
    """Reads the headers of the first `most` images; nothing is decoded."""
    found = Probe()
    for _, size in read_ahead(islice(items, most), lambda item: _size(item, max_pixels), lambda item: not item.local):
        found.probed += 1
        if isinstance(size, ImageError):
            found.reasons[size.reason] += 1
            continue
        width, height = size
        found.crops[pictures.count(height, width)] += 1
        found.pixels += width * height
        found.largest = max(found.largest, (width, height), key=lambda size: size[0] * size[1])
    return found


def _size(item: Item, max_pixels: int) -> tuple[int, int] | ImageError:
    """(width, height) of the upright picture, or why it has none: as decoding would find, as far as headers tell."""
    try:
        source = item.image()
        with open_regular(source) if isinstance(source, str) else io.BytesIO(source) as file:
            head = file.read(_HEAD_BYTES)
            if not head:
                return ImageError(item.key, "empty", "the file is empty")
            with _open(file, head) as image:
                width, height = image.size
                turned = orientation_of(image) in (5, 6, 7, 8)
    except ImageError as error:
        return error
    except (FileNotFoundError, NotADirectoryError):
        return ImageError(item.key, "not-found", "no such file")
    except Exception as error:  # broken files make Pillow raise nearly anything
        reason, fault = diagnose(error, max_pixels)
        if reason == "not-an-image":
            reason, fault = identify(head) or (reason, fault)
        return ImageError(item.key, reason, fault)
    if width * height > max_pixels:
        return ImageError(item.key, "too-large", f"{width} x {height} pixels")
    return (height, width) if turned else (width, height)


def _open(file: IO[bytes], head: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about sizes and odd metadata; limits are looked at here
        try:
            return open_image(file)
        except Exception:
            if not head.startswith(png.SIGNATURE):
                raise
            # It may be its metadata, which decoding leaves out; that reads the whole file.
            file.seek(0)
            return open_image(png.without_metadata(file, False)[0])
