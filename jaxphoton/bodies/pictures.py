"""The picture in a body: a data address, plain base64, or an address of the web."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxphoton.bodies.faults import BodyError
from jaxphoton.image.address import base64_of, data_of, is_data
from jaxphoton.image.several import SeveralImages


@dataclass(frozen=True, slots=True)
class Address:
    """Of a picture that still has to be fetched; `param` is the part of the body that has it."""

    url: str
    param: str = "image_url"


# That of a body: its bytes, or where they are, or several of these; or none.
Picture = bytes | Address | SeveralImages | None
# From the text of a picture, and the part of the body that has it.
ReadPicture = Callable[[str, str], bytes | Address]


def picture_of(text: str, param: str = "image_url") -> bytes | Address:
    """The bytes of a picture, or where they are.

    Raises:
      BodyError: neither base64 nor a data or http address.
    """
    head = text[:64].lower()
    if head.startswith(("http://", "https://")):
        return Address(text, param)
    if not is_data(text) and ":" in head:
        raise BodyError(f"{param} must be a data address (data:image/jpeg;base64,...) or an http address", param)
    try:
        return data_of(text) if is_data(text) else base64_of(text)
    except ValueError as error:
        raise BodyError(f"{param} {error}", param) from None
