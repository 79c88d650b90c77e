"""Choices that depend on the machine, made in one place."""

from __future__ import annotations

import gc
import hashlib
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike

from jaxphoton.config import EngineConfig
from jaxphoton.config.mesh import AXES, MeshError, mesh_shape
from jaxphoton.messages import listed, quoted

SWITCH_INTERVAL_S = 5e-4
FROZEN = gc.get_freeze_count()  # objects: from Python 3.12 on it begins with some

Device = Any  # a jax.Device, which type checkers take for a variable


class NoDeviceError(ValueError):
    """The device asked for is not there."""


def find_device(device: str | Device | None) -> Device:
    """The device meant by a name ("cpu", "gpu", "cuda:1"), a jax.Device, or None for jax's default.

    Raises:
      NoDeviceError: there is no such device; the message names those there are.
      TypeError: it is neither.
    """
    if device is not None and not isinstance(device, str):
        if not isinstance(device, jax.Device):
            raise TypeError(f'device must be a name such as "cpu" or "cuda:1", or a jax.Device, not {quoted(device)}')
        return device
    try:
        devices = jax.devices()
    except Exception as error:  # what it raises depends on what is missing
        wanted = f" (JAX_PLATFORMS={os.environ['JAX_PLATFORMS']})" if os.environ.get("JAX_PLATFORMS") else ""
        reason = next(iter(str(error).splitlines()), "") or "its plugin is missing or does not start"
        raise NoDeviceError(f"jax finds no device{wanted}: {reason}") from error
    if device is None:
        return devices[0]
    kind, _, index = device.partition(":")
    try:
        place = int(index or 0)
        if place < 0:
            raise IndexError
        return jax.devices(kind)[place]
    except (RuntimeError, ValueError, IndexError):
        found = ", ".join(str(d) for d in devices)
        raise NoDeviceError(f"no device {device!r}; there are: {found}") from None


def find_mesh(mesh: str | Mesh) -> Mesh:
    """The mesh that is meant by a text such as "model=2,expert=2", of the first devices of jax's default platform, or
    by a jax.sharding.Mesh.

    Raises:
      MeshError: there are fewer devices, it has other axes than "data", "model" and "expert", or "data" has more than
        one device; or it has none, or one twice.
      NoDeviceError: jax finds no device.
      TypeError: it is neither.
    """
    if isinstance(mesh, str):
        shape, devices = mesh_shape(mesh), [find_device(None)]
        devices = jax.devices(devices[0].platform)
        _check_axes(shape)
        needed = math.prod(shape.values())
        if needed > len(devices):
            there = f"there {'is' if len(devices) == 1 else 'are'} {len(devices)}: {listed(map(str, devices))}"
            raise MeshError(f"the mesh {quoted(mesh)} needs {needed} devices, and {there}")
        return Mesh(np.array(devices[:needed]).reshape(tuple(shape.values())), AXES)
    if not isinstance(mesh, Mesh):
        raise TypeError(f'mesh must be a text such as "model=2" or a jax.sharding.Mesh, not {quoted(mesh)}')
    _check_axes(mesh.shape)
    if len(set(mesh.devices.flat)) < max(mesh.size, 1):
        raise MeshError(
            f"a mesh has one device at least, and none twice; this one has {listed(map(str, mesh.devices.flat))}"
        )
    return Mesh(mesh.devices, mesh.axis_names)  # programs say themselves what lies where: no axis is explicit


def _check_axes(shape: Mapping[str, int]) -> None:
    if unknown := [name for name in shape if name not in AXES]:
        raise MeshError(f"a mesh has the axes {', '.join(AXES)}; this one has {listed(map(quoted, unknown))}")
    if shape.get("data", 1) > 1:
        raise MeshError(
            f"the mesh has data={shape['data']}, and one engine answers with one copy of the model: several copies are "
            "replicas, processes with a mesh each (--replicas)"
        )


def default_dtype(device: Device) -> DTypeLike:
    """bfloat16, but float32 on a CPU, where XLA converts bfloat16 weights back at every use."""
    return jnp.float32 if device.platform == "cpu" else jnp.bfloat16


def default_engine(device: Device, most: int) -> EngineConfig:
    """The engine's settings where the user gives none; `most` crops has a picture."""
    return cpu_engine(most) if device.platform == "cpu" else EngineConfig()


def cpu_engine(most: int) -> EngineConfig:
    """The settings for a CPU: few small programs, which compile in seconds and load in less.

    There nothing is gained by encoding several pictures together, and padding costs what any row does. A picture's
    padding crops cost nothing: one program takes `most`, the most crops of a picture.
    """
    return EngineConfig(max_rows=8, step_rows=(1, 8), prefill_rows=(1, 4), prefill_lengths=(32,), vision=((1, most),))


def share_interpreter() -> None:
    """Lets the thread that launches steps have the interpreter back from a busy thread after 0.5 ms instead of 5."""
    sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_S))


def calm_interpreter() -> None:
    """Keeps Python out of the engine's way once everything is loaded and compiled; for a process of our own.

    Besides `share_interpreter`, objects made so far (there are many, and they stay) are left out of every later
    collection of garbage. A library must not do that to its host: a cycle that is frozen is never freed.
    """
    share_interpreter()
    gc.collect()
    gc.freeze()


@contextmanager
def calmed_interpreter() -> Iterator[None]:
    """`calm_interpreter` until the end of a block: a command may run in somebody's process.

    Where that has frozen objects itself, none are frozen here: to unfreeze is to unfreeze them all.
    """
    if gc.get_freeze_count() > FROZEN:
        share_interpreter()
        yield
        return
    calm_interpreter()
    try:
        yield
    finally:
        gc.unfreeze()


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk from run to run, unless the user has set a place of their own.

    JAXPHOTON_CACHE names another folder; empty, it switches the cache off. Thresholds are lowered because the
    default ones skip small programs.
    """
    place = cache_folder()
    users: Any = jax.config  # its options are attributes that type checkers do not know
    if users.jax_compilation_cache_dir is not None or place is None:
        return
    jax.config.update("jax_compilation_cache_dir", str(place / "xla" / _exchange_group()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def cache_folder() -> Path | None:
    """Where things are kept from run to run; None if JAXPHOTON_CACHE is empty."""
    place = os.environ.get("JAXPHOTON_CACHE", str(Path.home() / ".cache" / "jaxphoton"))
    return Path(place) if place else None


def _exchange_group() -> str:
    """Names the processes whose entries are interchangeable: of one Python, one jax and one kind of CPU.

    From Python 3.14 on jax compresses entries with zstd, before with zlib, under the same key: in a shared folder one
    of the two Pythons warns at every start and compiles everything anew.
    """
    return f"py{sys.version_info[0]}{sys.version_info[1]}-jax{jax.__version__}-{machine()}"


def machine() -> str:
    """Code for a CPU runs on that kind of CPU only: a home directory may be shared by several."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        features = ""
    return hashlib.sha256(features.encode()).hexdigest()[:12]
