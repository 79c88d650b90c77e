"""The pictures of requests that come in a file: in the line itself, in files of this machine, or on the web."""

from __future__ import annotations

import os
from collections.abc import Callable
from urllib.parse import urlsplit
from urllib.request import url2pathname

from jaxphoton.batch.sources.item import Item
from jaxphoton.batch.sources.values import is_embedded
from jaxphoton.bodies.faults import BodyError
from jaxphoton.bodies.pictures import Address, Picture, picture_of
from jaxphoton.image.several import SeveralImages
from jaxphoton.messages import short

FILE = "file:"
_LONGEST_PATH = 4096

Fetch = Callable[[str, str], bytes]
Image = str | bytes | SeveralImages | None


class RequestPictures:
    """Reads the pictures of requests.

    Args:
      root: the folder that relative paths start from; None where no file may be read.
      fetch: the bytes at an address of the web, given the part of the body that has it, or raises BodyError; None
        where none may be fetched.
    """

    def __init__(self, root: str | None = None, fetch: Fetch | None = None):
        self._root, self._fetch = root, fetch

    def read(self, text: str, param: str) -> bytes | Address:
        """What the text of a picture means; a `ReadPicture`. Paths become addresses that begin with `FILE`.

        Raises:
          BodyError: nothing that may be read.
        """
        head = text[:64].lower()
        web = head.startswith(("http://", "https://"))
        if self._root is None or web or head.startswith("data:") or len(text) > _LONGEST_PATH or is_embedded(text):
            return picture_of(text, param)
        return Address(FILE + os.path.join(self._root, _path(text, param)), param)

    def is_slow(self, picture: Picture) -> bool:
        """Whether `image` has to wait for another machine."""
        if isinstance(picture, SeveralImages):
            return any(self.is_slow(each) for each in picture.images)
        return isinstance(picture, Address) and not picture.url.startswith(FILE)

    def image(self, picture: Picture) -> Image:
        """What a model takes for it: a path, or bytes, or several of these.

        Raises:
          BodyError, ImageError: it cannot be had.
        """
        if isinstance(picture, SeveralImages):
            return SeveralImages(tuple(picture.each(self.image)))
        if not isinstance(picture, Address):
            return picture
        if picture.url.startswith(FILE):
            path = picture.url.removeprefix(FILE)
            return Item(path, path, bytes, local=True, listed=True).image()
        if self._fetch is None:
            message = "no pictures are fetched from addresses here, unless with --allow-remote-images"
            raise BodyError(message, picture.param, "remote_images_off")
        return self._fetch(picture.url, picture.param)


def _path(text: str, param: str) -> str:
    if text[:5].lower() == FILE:
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise BodyError(f"{param}: {short(text)} is on another machine", param)
        text = url2pathname(parts.path)
    elif "://" in text[:64]:
        raise BodyError(f"{param} must be a path, an http address, or a data address, not {short(text)}", param)
    if not text or "\0" in text:
        raise BodyError(f"{param} names no file", param)
    return text
