"""The ways to resize a picture, and which of them can be had here. Imports little: options name them."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any, Literal, get_args

from jaxphoton.messages import quoted

# "exact": Pillow's, the same pixels on every release. "fast": the same filter with vector instructions, in a
# sixth to a ninth of the time; at most 2 levels away, in about one of 200 values.
Resize = Literal["exact", "fast"]
RESIZES: tuple[Resize, ...] = get_args(Resize)
# What is laid over the pixels: that of nearly all families, and what some processors of Hugging Face have.
Filter = Literal["lanczos", "bicubic"]
FILTERS: tuple[Filter, ...] = get_args(Filter)

# The resizer reads Pillow's memory by the layout of these.
_PILLOWS = range(11, 14)


def default_resize() -> Resize:
    """The fast one, or a warning and the exact one where that cannot be had."""
    return "exact" if _told_fault() else "fast"


def check_resize(how: Any) -> Resize:
    """Raises ValueError for what is neither of RESIZES, or cannot be had here; it is no picture's fault."""
    if how not in RESIZES:
        raise ValueError(f"resize must be one of {', '.join(RESIZES)}, not {quoted(how)}")
    if how == "fast" and (fault := fast_fault()):
        raise ValueError(f"resize 'fast' {fault}; 'exact' is always there")
    return how


@cache
def fast_fault() -> str | None:
    """What "fast" lacks here; None for nothing."""
    try:
        import cykooz_resizer  # noqa: F401
    except ImportError as error:
        return f"needs the package cykooz-resizer ({error})"
    import PIL

    if int(PIL.__version__.partition(".")[0]) not in _PILLOWS:
        return f"was not tried with Pillow {PIL.__version__}"
    return None


@cache
def _told_fault() -> str | None:
    if fault := fast_fault():
        logging.getLogger("jaxphoton.image").warning(
            "pictures are resized exactly, and slowly: resize 'fast' %s", fault
        )
    return fault
