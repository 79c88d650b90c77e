"""FITS files, whose numbers Pillow reads in the wrong byte order before 13.0."""

from __future__ import annotations

import re
from typing import IO, Any

from jaxphoton.image.colour import Form

_RAWMODES = {16: "I;16B", 32: "I;32BS", -32: "F;32BF", -64: "F;64BF"}


def adapt(image: Any, stream: IO[bytes]) -> Form:
    """Makes an opened `FitsImageFile` load what the file holds; how its samples are to be read then."""
    place = stream.tell()
    stream.seek(0)
    found = re.search(rb"BITPIX  =\s*(-?\d+)", stream.read(2880))
    stream.seek(place)
    bits = int(found[1]) if found else 8
    if bits in _RAWMODES and [tile.codec_name for tile in image.tile] == ["raw"]:
        (tile,) = image.tile
        image.tile = [tile._replace(args=(_RAWMODES[bits], *tile.args[1:]))]
    # Unsigned numbers are stored as signed ones too, with an offset in the header.
    return Form(signed=bits == 16)
