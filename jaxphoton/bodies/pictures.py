"""The picture in a body: a data address, plain base64, or an address of the web."""

from __future__ import annotations

import binascii
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from jaxphoton.bodies.faults import BodyError


@dataclass(frozen=True, slots=True)
class Address:
    """Of a picture that still has to be fetched."""

    url: str


# From the text of a picture, and the part of the body that has it.
ReadPicture = Callable[[str, str], bytes | Address]


def picture_of(text: str, param: str = "image_url") -> bytes | Address:
    """The bytes of a picture, or where they are.

    Raises:
      BodyError: neither base64 nor a data or http address.
    """
    head = text[:64].lower()
    if head.startswith(("http://", "https://")):
        return Address(text)
    if head.startswith("data:"):
        kind, comma, data = text[5:].partition(",")
        if not comma:
            raise BodyError(f"{param} is a data address without data", param)
        if not kind.lower().rstrip().endswith(";base64"):
            return unquote_to_bytes(data)
        text = data
    elif ":" in head:
        raise BodyError(f"{param} must be a data address (data:image/jpeg;base64,...) or an http address", param)
    return _decoded(text, param)


def _decoded(text: str, param: str) -> bytes:
    try:
        data = text.encode("ascii")
        data = data.translate(bytes.maketrans(b"-_", b"+/"), b" \t\r\n")
        return binascii.a2b_base64(data + b"=" * (-len(data) % 4), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        raise BodyError(f"{param} is not base64", param) from None
