"""The one error of the image package, and what the exceptions of Pillow mean in its words."""

from __future__ import annotations

import re
from typing import Literal, get_args

Reason = Literal[
    "not-found",
    "unreadable",
    "empty",
    "not-an-image",
    # A good file, as far as one can tell, of a kind that there is no decoder for.
    "unsupported",
    "truncated",
    "too-large",
    "corrupt",
    # Not what the file says, but what became of the processes that had it:
    "timeout",
    "process-died",
]
REASONS: tuple[Reason, ...] = get_args(Reason)


class ImageError(ValueError):
    """A picture that cannot be used.

    Attributes:
      source: the name shown for it: its path, or `<bytes>`, `<file>`, `<image>`.
      reason: one of `REASONS`.
      fault: what is wrong, in plain words.
    """

    def __init__(self, source: str, reason: Reason, fault: str):
        # All three in `args`, so that the error survives pickling on its way from a worker.
        super().__init__(source, reason, fault)
        self.source, self.fault = source, fault
        self.reason: Reason = reason

    def __str__(self) -> str:
        return f"{self.source}: {self.fault}"


class Refused(Exception):
    """A fault found by code that does not know the name of the file."""

    def __init__(self, reason: Reason, fault: str):
        super().__init__(fault)
        self.reason: Reason = reason
        self.fault = fault


# Pillow's words for files that it knows and cannot read.
_NOT_SUPPORTED = re.compile(
    r"unsupported|not (yet )?supported|unimplemented|unknown raw mode|unrecognized image mode", re.I
)


def diagnose(error: Exception, max_pixels: int) -> tuple[Reason, str]:
    """The reason and the fault behind whatever was thrown while a picture was read."""
    from PIL import Image, UnidentifiedImageError  # not above: the errors are imported where no picture is read

    text = str(error) or type(error).__name__
    if isinstance(error, Refused):
        return error.reason, error.fault
    if isinstance(error, Image.DecompressionBombError):
        return "too-large", over_limit(max_pixels)
    if isinstance(error, MemoryError):
        return "too-large", "not enough memory to decode it"
    if isinstance(error, UnidentifiedImageError):
        return "not-an-image", "not an image in a known format"
    # Pillow's own OSErrors carry no error number; those of the disk do.
    if isinstance(error, OSError) and error.errno is not None:
        return "unreadable", cannot_read(error)
    if isinstance(error, EOFError) or "truncated" in text.lower():
        return "truncated", "the file is cut short"
    if _NOT_SUPPORTED.search(text):
        return "unsupported", f"a kind of image that is not supported ({text})"
    return "corrupt", f"the image data is damaged ({text})"


def over_limit(max_pixels: int) -> str:
    return f"more than the limit of {max_pixels / 1e6:.1f} megapixels"


def cannot_read(error: Exception) -> str:
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"
