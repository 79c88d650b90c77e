"""Choices that depend on the machine, made in one place."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


def find_device(device: str | jax.Device | None) -> jax.Device:
    """The device meant by a name ("cpu", "gpu", "cuda:1"), a jax.Device, or None for jax's default.

    Raises:
      ValueError: there is no such device; the message names those there are.
    """
    if device is None:
        return jax.devices()[0]
    if not isinstance(device, str):
        return device
    kind, _, index = device.partition(":")
    try:
        return jax.devices(kind)[int(index or 0)]
    except (RuntimeError, ValueError, IndexError):
        found = ", ".join(str(d) for d in jax.devices())
        raise ValueError(f"no device {device!r}; there are: {found}") from None


def default_dtype(device: jax.Device) -> DTypeLike:
    """bfloat16, but float32 on a CPU, where XLA converts bfloat16 weights back at every use."""
    return jnp.float32 if device.platform == "cpu" else jnp.bfloat16
