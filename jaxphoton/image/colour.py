"""Any Pillow picture or NumPy array -> 8-bit RGB, with a note for each conversion a user may want to know of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

ARRAY_FORMS = (
    "uint8, uint16, bool or float (0 to 1) in [height, width] or [height, width, channels] with 1, 3 or 4 channels"
)


@dataclass(frozen=True, slots=True)
class Form:
    """What a file says about its samples that the loaded picture does not.

    Attributes:
      rawmode: Pillow's name of the pixel form inside the file (`RGB;16B`), empty for a picture from memory.
      inverted: 0 is white still.
      unsigned: the 32-bit numbers are unsigned.
      signed: the 16-bit numbers are signed, and what is black and white is not known.
      transparent: bool [height, width], the transparent pixels, where the loaded ones do not tell them.
    """

    rawmode: str = ""
    inverted: bool = False
    unsigned: bool = False
    signed: bool = False
    transparent: np.ndarray | None = None


def to_rgb(image: Image.Image, form: Form, background: tuple[int, int, int]) -> tuple[Image.Image, list[str]]:
    """Converts a loaded picture of any mode to mode RGB.

    Args:
      image: a loaded picture; it is not changed.
      form: how its samples are to be read.
      background: the colour that shows through transparent pixels.

    Returns:
      the RGB picture, which is `image` itself where nothing is to be done, and the notes.
    """
    rawmode = form.rawmode
    deep = ";16" in rawmode and not rawmode.startswith("BGR") and not image.mode.startswith("I")
    notes = ["scaled from 16 bits"] if deep else []
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        image, note = _grey_to_8_bits(image, form)
        notes.append(note)
    elif image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        notes.append(f"converted from {image.mode}")
    if image.mode == "LAB":
        image = _lab_to_rgb(image)
    if form.transparent is not None:
        image = image.copy()
        image.putalpha(Image.fromarray(np.where(form.transparent, 0, 255).astype(np.uint8)))
    if not image.has_transparency_data and image.mode != "RGBa":
        return image if image.mode == "RGB" else image.convert("RGB"), notes
    image = _with_alpha(image, rawmode)
    alpha = image.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return image.convert("RGB"), notes
    blended = Image.new("RGB", image.size, background)
    blended.paste(image.convert("RGB"), mask=alpha)
    name = "white" if background == (255, 255, 255) else str(background)
    return blended, [*notes, f"transparency blended over {name}"]


def array_to_image(array: np.ndarray) -> tuple[Image.Image, list[str]]:
    """A picture of mode L, RGB or RGBA from an array of one of `ARRAY_FORMS`.

    Raises:
      TypeError: another element type.
      ValueError: another shape, no pixels, or floats outside 0 to 1.
    """
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or 0 in array.shape:
        raise ValueError(f"array of shape {list(array.shape)}: expected {ARRAY_FORMS}")
    notes = []
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype == np.uint16:
        array, notes = _from_16_bits(array), ["scaled from 16 bits"]
    elif np.issubdtype(array.dtype, np.floating):
        # The negated form also refuses NaN.
        if not (array.min() >= 0 and array.max() <= 1):
            raise ValueError(f"float array with values outside 0 to 1: expected {ARRAY_FORMS}")
        array, notes = _from_unit(array), ["scaled from floating point"]
    elif array.dtype != np.uint8:
        raise TypeError(f"array of {array.dtype}: expected {ARRAY_FORMS}")
    return Image.fromarray(np.ascontiguousarray(array)), notes


def _with_alpha(image: Image.Image, rawmode: str) -> Image.Image:
    """Mode RGBA, whichever way the transparency was stored."""
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    key: Any = image.info.get("transparency")
    scale = {"L;2": 85, "L;4": 17}.get(rawmode)
    # Pillow widens the pixels of such PNG files to 8 bits but not the transparent colour that they are compared to.
    if scale and isinstance(key, int):
        image = image.copy()
        image.info["transparency"] = key * scale
    elif rawmode.startswith("RGB;16") and isinstance(key, tuple):
        image = image.copy()
        image.info["transparency"] = tuple(part >> 8 for part in key)
    return image.convert("RGBA")


def _grey_to_8_bits(image: Image.Image, form: Form) -> tuple[Image.Image, str]:
    """Grey of 16 or 32 bits or floating point -> mode L (LA where one value is transparent)."""
    values = np.asarray(image)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if form.unsigned:
        values = values.view(np.uint32)
    if form.signed:
        values = values.view(np.int16)
    finite = values[np.isfinite(values)] if image.mode == "F" else values
    low, high = (finite.min().item(), finite.max().item()) if finite.size else (0, 0)
    if image.mode == "F":
        values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    if image.mode == "F" and low >= 0 and high <= 1:
        grey, note = _from_unit(values), "scaled from floating point"
    elif image.mode == "F" and low >= 0 and high <= 255:
        grey, note = np.rint(values).astype(np.uint8), "rounded from floating point"
    elif form.rawmode == "I;12":
        grey, note = np.rint(values / 4095 * 255).astype(np.uint8), "scaled from 12 bits"
    elif low >= 0 and high <= 65535 and image.mode != "F" and not form.signed:
        grey, note = _from_16_bits(values), "scaled from 16 bits"
    else:
        # Nothing in the file says which values mean black and white: the darkest and the brightest do.
        span = max(float(high) - float(low), np.finfo(np.float64).tiny)
        grey, note = _from_unit((values.astype(np.float64) - low) / span), f"stretched from {low:g}..{high:g}"
    if form.inverted:
        grey = 255 - grey
    key = image.info.get("transparency")
    if image.mode.startswith("I") and isinstance(key, int):
        alpha = np.where(values == key, 0, 255).astype(np.uint8)
        return Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha))), note
    return Image.fromarray(grey), note


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    assert converted is not None
    return converted


def _from_16_bits(values: np.ndarray) -> np.ndarray:
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _from_unit(values: np.ndarray) -> np.ndarray:
    return np.rint(values.astype(np.float64) * 255).astype(np.uint8)
