"""Pictures that are texts: `data:` addresses and base64."""

from __future__ import annotations

import binascii
from urllib.parse import unquote, unquote_to_bytes


def is_data(text: str) -> bool:
    """Whether a text is a `data:` address."""
    return text[:5].lower() == "data:"


def data_of(address: str) -> bytes:
    """What is in a `data:` address.

    Raises:
      ValueError: nothing, or what is no base64; the message goes behind the name of the place.
    """
    kind, comma, data = address[5:].partition(",")
    if not comma:
        raise ValueError("is a data address without data")
    if not kind.lower().rstrip().endswith(";base64"):
        return unquote_to_bytes(data)
    return base64_of(unquote(data) if "%" in data else data)


def base64_of(text: str) -> bytes:
    """Bytes of base64 in either alphabet; padding may lack, lines may be broken.

    Raises:
      ValueError: it is none.
    """
    try:
        data = text.encode("ascii").translate(bytes.maketrans(b"-_", b"+/"), b" \t\r\n")
        return binascii.a2b_base64(data + b"=" * (-len(data) % 4), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        raise ValueError("is not base64") from None
