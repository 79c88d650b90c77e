"""Chooses how an operation is computed: by device and shape, or as told; never silently.

* `reference`: plain jax.numpy, the contract. What runs without a GPU.
* `loop`: jax.numpy row by row, reading only what is seen, where an operation has such a form: on a CPU.
* `triton`: Pallas-Triton, on NVIDIA GPUs.
* `interpret`: the Triton kernel through Pallas's interpreter, on any device; for tests.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

Device = Any  # a jax.Device, which type checkers take for a variable
Index = int | jax.Array  # of a layer; an array in a program that is traced once for several
BACKENDS = ("reference", "loop", "triton", "interpret")
OLDEST = 80  # compute capability 8.0: what Triton compiles for
FLOAT8_FROM = 89  # below it Triton casts no float8

_log = logging.getLogger(__name__)


class KernelUnavailable(ValueError):
    """A backend was asked for that cannot compute this operation here; the message gives every reason."""


@dataclass(frozen=True, slots=True)
class Target:
    """The device a program is compiled for.

    Attributes:
      platform: "cuda", "cpu" or another of jax's names.
      capability: compute capability times ten (90 for 9.0); None where it is unknown or means nothing.
      cores: multiprocessors; they set how finely work is split.
    """

    platform: str
    capability: int | None = None
    cores: int = 128

    @classmethod
    def of(cls, device: Device) -> Target:
        if device.platform != "gpu":
            return cls(device.platform)
        if "rocm" in str(getattr(device.client, "platform_version", "")).lower():
            return cls("rocm")
        major, _, minor = str(getattr(device, "compute_capability", "")).partition(".")
        capability = 10 * int(major) + int(minor or 0) if major.isdigit() else None
        return cls("cuda", capability, getattr(device, "core_count", None) or 128)


def outside(index: Index, count: int) -> bool:
    """Whether an index is none of `count`; False for one that a program computes, which is not known here."""
    return not isinstance(index, Tracer) and not 0 <= index < count


def choose(
    op: str,
    backend: str | None,
    target: Target | None,
    refusals: Sequence[str] = (),
    operands: Sequence[jax.Array] = (),
    loop: bool = False,
) -> str:
    """The backend that computes `op`.

    Args:
      op: its name, for messages.
      backend: one of BACKENDS; None or "auto" takes `triton` where it can, on a CPU `loop`, else `reference`.
      target: what the program is compiled for; None for jax's default device.
      refusals: why this kernel cannot take these shapes and dtypes on any device; empty if it can.
      operands: large arrays that it reads, for what all kernels refuse.
      loop: whether it has a `loop` form.

    Raises:
      KernelUnavailable: the backend asked for cannot do it.
    """
    target = target or Target.of(jax.devices()[0])
    if backend not in (None, "auto", *BACKENDS):
        raise KernelUnavailable(f"{op}: unknown backend {backend!r}; there are auto, {', '.join(BACKENDS)}")
    if backend == "reference" or (backend == "loop" and loop):
        return backend
    if backend == "loop":
        raise KernelUnavailable(f"{op}: there is no loop form of it")
    if backend in (None, "auto") and loop and target.platform == "cpu":
        return "loop"
    reasons = [*refusals, *overflows(operands)]
    if backend != "interpret":
        reasons += _device_refusals(target, operands)
    if backend in ("triton", "interpret"):
        if reasons:
            raise KernelUnavailable(f"{op}: {backend} cannot be used: {'; '.join(reasons)}")
        return backend
    if reasons and target.platform == "cuda":
        _warn_once(op, "; ".join(reasons))
    return "reference" if reasons else "triton"


def overflows(operands: Sequence[jax.Array | jax.ShapeDtypeStruct]) -> list[str]:
    """Which operands no kernel can address: Pallas-Triton counts elements in signed 32 bits up to 2^32 bytes, which is
    too few for one-byte elements."""
    sizes = [x.size for x in operands if x.dtype.itemsize == 1 and 2**31 < x.size <= 2**32]
    return [f"{size} one-byte elements, between 2^31 and 2^32, overflow its offsets" for size in sizes[:1]]


def _device_refusals(target: Target, operands: Sequence[jax.Array]) -> list[str]:
    if target.platform != "cuda":
        return [f"it runs on NVIDIA GPUs, not on {target.platform}"]
    float8 = any(x.dtype.itemsize == 1 and jnp.issubdtype(x.dtype, jnp.floating) for x in operands)
    what, needed = ("float8", FLOAT8_FROM) if float8 else ("it", OLDEST)
    if target.capability is not None and target.capability < needed:
        return [f"{what} needs compute capability {needed / 10}, this device has {target.capability / 10}"]
    return []


@cache
def _warn_once(op: str, reasons: str) -> None:
    _log.warning("%s: the plain form is used instead of the kernel: %s", op, reasons)
