"""Where programs are compiled for: a device that is here, or a GPU that is not."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import jax
import jaxlib.version

from jaxphoton import platform
from jaxphoton.engine import gpus
from jaxphoton.models.protocol import Kernels
from kernels_pallas.dispatch import Target

# The oldest drivers that run what CUDA's compilers of these major versions make (NVIDIA's minor version compatibility).
DRIVERS = {12: "525.60.13", 13: "580.65.06"}
RESERVE = 0.75  # the share of a GPU's memory that jax takes where nobody says otherwise
# What XLA puts into CUDA graphs: its own list, which an option replaces whole, and collectives. Left out they cut a
# step on a mesh into pieces, a graph and a launch for every sum.
GRAPHS = "xla_gpu_enable_command_buffer"
GRAPHED = ("FUSION", "CUBLAS", "CUBLASLT", "CUDNN", "CUSTOM_CALL", "CONDITIONAL", "DYNAMIC_SLICE_FUSION", "COLLECTIVES")
GRAPHED_SINCE_0_12 = ("COLLECTIVES_KERNEL",)  # older ones do not know it

Facts = dict[str, Any]  # JSON values
Arguments = tuple[Any, ...]


class Place(Protocol):
    """Where programs run.

    Attributes:
      target: what kernels are chosen for.
      kind: of the device, as jax calls it.
      encoder: how the image encoder is computed, where that is not how the rest is.
    """

    target: Target
    kind: str
    encoder: Kernels | None

    def memory(self) -> tuple[int | None, int]:
        """(bytes that its allocator can hand out, bytes handed out already); (None, 0) where that is not known."""
        ...

    def compile(self, name: str, function: Callable[..., Any], arguments: Arguments, donated: tuple[int, ...]) -> Any:
        """A jax.stages.Compiled of a function of trees of shapes; donated are places of arguments that it changes."""
        ...

    def facts(self) -> Facts:
        """What executables depend on."""
        ...


class Here:
    """A device of this process, where parameters lie."""

    encoder: Kernels | None = None

    def __init__(self, sharding: jax.sharding.Sharding):
        self.device = min(sharding.addressable_devices, key=lambda device: device.id)
        self.target, self.kind = Target.of(self.device), self.device.device_kind
        self._options = options(self.target, len(sharding.device_set))
        self._shared = sharding.addressable_devices

    def memory(self) -> tuple[int | None, int]:
        """Of the device that has the least left: all of them are given as much."""
        return min(
            map(memory_of, self._shared), key=lambda found: math.inf if found[0] is None else found[0] - found[1]
        )

    def compile(self, name: str, function: Callable[..., Any], arguments: Arguments, donated: tuple[int, ...]) -> Any:
        return jax.jit(function, donate_argnums=donated).lower(*arguments).compile(self._options)

    def facts(self) -> Facts:
        return _facts(self.target)

    def __str__(self) -> str:
        return str(self.device)


class Absent:
    """A GPU that is not here, or several of them: a `Gpu.mesh`, on which parameters lie as their shapes say. Without
    cuDNN here, the image encoder takes XLA's attention."""

    def __init__(self, gpu: gpus.Gpu, mesh: jax.sharding.Mesh | None = None):
        self._gpu, self.target, self.kind = gpu, gpu.target, gpu.kind
        self._mesh, self._options = mesh, options(gpu.target, 1 if mesh is None else mesh.size)
        self.encoder = None if gpus.has_module("nvidia.cudnn") else Kernels("reference", gpu.target)

    def memory(self) -> tuple[int | None, int]:
        return int(self._gpu.memory * RESERVE), 0

    def compile(self, name: str, function: Callable[..., Any], arguments: Arguments, donated: tuple[int, ...]) -> Any:
        # Without autotuning XLA finds no Triton tiling for a product whose rows are heads of 72; cuBLAS takes any.
        plain = name == "vision" and self.encoder is not None
        options = {**self._options, **({"xla_gpu_enable_triton_gemm": False} if plain else {})}
        mesh = self._gpu.mesh() if self._mesh is None else self._mesh
        return gpus.compile_for(mesh, function, arguments, donated, options)

    def facts(self) -> Facts:
        return _facts(self.target)

    @property
    def told(self) -> str:
        """What is compiled for, for people."""
        plain = "" if self.encoder is None else "; without cuDNN here, pictures take XLA's attention"
        return f"{self._gpu.name} (compute capability {(self.target.capability or 0) / 10}){plain}"

    def __str__(self) -> str:
        return self._gpu.name


def options(target: Target | None, devices: int) -> dict[str, Any]:
    """XLA's options for a program that so many devices run together; a list of graphs in XLA_FLAGS stands."""
    told = GRAPHS in os.environ.get("XLA_FLAGS", "")
    if devices == 1 or target is None or target.platform != "cuda" or told:
        return {}
    newer = GRAPHED_SINCE_0_12 if jax.__version_info__ >= (0, 12) else ()
    return {GRAPHS: ",".join(GRAPHED + newer)}


def memory_of(device: Any) -> tuple[int | None, int]:
    """(bytes that the allocator can hand out, bytes handed out already); (None, 0) on a CPU, which does not say."""
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit"), stats.get("bytes_in_use", 0)


def driver(root: Path = Path("/")) -> str | None:
    """The version of the NVIDIA driver that is loaded, None without one."""
    try:
        text = (root / "proc/driver/nvidia/version").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"^NVRM version:.*?\s(\d+(?:\.\d+)+)\s", text, re.MULTILINE)
    return found[1] if found else None


def too_old(driver: str | None, least: str) -> bool:
    """Whether a driver is known to be older than another version."""
    return driver is not None and _numbers(driver) < _numbers(least)


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _facts(target: Target) -> Facts:
    facts: Facts = {"jax": jax.__version__, "jaxlib": jaxlib.version.__version__, "platform": target.platform}
    if target.platform == "cpu":
        return facts | {"processor": platform.machine()}
    found = gpus.plugin()
    version, cuda = found or (None, None)
    return facts | {
        "plugin": version,
        "cuda": cuda,
        "driver": DRIVERS.get(cuda or 0),
        "capability": target.capability,
        "multiprocessors": target.cores,
    }
