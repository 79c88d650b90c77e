"""JPEGs that are larger than needed."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image


def reduce(image: Image.Image, needed: Callable[[int, int], tuple[int, int]], turned: bool) -> tuple[int, int] | None:
    """Lets a JPEG that is not loaded yet be decoded at 1/2, 1/4 or 1/8 of its size, as far as that is enough.

    Args:
      needed: from (height, width) of the upright picture to what is enough of it.
      turned: whether height and width change places on the way to the upright picture.

    Returns:
      (height, width) of the whole upright picture; None if it stays as it is.
    """
    if image.format != "JPEG":
        return None
    width, height = image.size
    upright = (width, height) if turned else (height, width)
    enough = needed(*upright)
    # Of the same mode: draft would also leave the colours out if asked to.
    image.draft(None, enough if turned else (enough[1], enough[0]))
    return upright if image.size != (width, height) else None
