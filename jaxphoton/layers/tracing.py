"""Layers that a program traces once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.core import Tracer

Layer = Callable[..., Any]


def traced_once(layer: Layer, x: Any, **options: Any) -> Layer:
    """A layer's function, for a network that calls it for one layer behind the other: a program traces and lowers it
    once for all layers that are alike, which for each would take longer than loading the program does. XLA puts it
    inline again.

    Args:
      layer: may read values of the program that it is not given.
      x: what it is called with. Outside a program the function itself comes back: jit would compile it again and again.
      options: of `jax.jit`.
    """
    return jax.jit(layer, **options) if isinstance(x, Tracer) else layer
