"""GPUs that programs are compiled for without being here, through jax's CUDA plugin."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata, resources
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec, use_abstract_mesh

from kernels_pallas.dispatch import Target

NAMES = ("h200", "a100", "l40s")
MAJORS = (12, 13)  # of CUDA, for which jax has plugins
ONE: Mapping[str, int] = {"gpu": 1}  # shape of a mesh


class NoPlugin(ValueError):
    """jax's CUDA plugin, or the compiler that it calls, is not installed."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: its figures in the text form of XLA's GpuTargetConfigProto (`assets/targets`)."""

    name: str
    figures: str

    @property
    def capability(self) -> int:
        """Compute capability times ten."""
        return 10 * self._number(r"compute_capability \{ major: (\d+)") + self._number(
            r"capability \{[^}]*minor: (\d+)"
        )

    @property
    def target(self) -> Target:
        return Target("cuda", self.capability, self.figure("core_count"))

    @property
    def kind(self) -> str:
        """What jax calls such a device."""
        match = re.search(r'\bname: "([^"]+)"', self.figures)
        assert match, f"targets/{self.name}.txtpb has no name"
        return match[1]

    @property
    def memory(self) -> int:
        """Bytes."""
        return self.figure("device_memory_size")

    def mesh(self, shape: Mapping[str, int] = ONE) -> Mesh:
        """A mesh of such GPUs, which need not exist, in one machine and joined by NVLink."""
        # Groups that NVLink joins x machines of a group x GPUs of a machine.
        topology = f"1x1x{math.prod(shape.values())}"
        found = topologies.get_topology_desc(platform="cuda", target_config=self.figures, topology=topology)
        return Mesh(np.array(found.devices).reshape(tuple(shape.values())), tuple(shape))

    def figure(self, name: str) -> int:
        """One of `gpu_device_info`."""
        return self._number(rf"\b{name}: (\d+)")

    def _number(self, pattern: str) -> int:
        match = re.search(pattern, self.figures)
        assert match, f"targets/{self.name}.txtpb has no {pattern}"
        return int(match[1])


def _gpu(name: str) -> Gpu:
    file = resources.files("jaxphoton").joinpath("assets", "targets", f"{name}.txtpb")
    return Gpu(name, file.read_text(encoding="utf-8"))


CHIPS = {name: _gpu(name) for name in NAMES}


def plugin() -> tuple[str, int] | None:
    """The version of jax's CUDA plugin that is installed, and the major version of its CUDA; None without one."""
    for major in MAJORS:
        try:
            return metadata.version(f"jax-cuda{major}-plugin"), major
        except metadata.PackageNotFoundError:
            continue
    return None


def require_plugin() -> None:
    """Raises NoPlugin with what to install, unless programs can be compiled for GPUs that are not here."""
    found = plugin()
    nvcc = "nvidia.cuda_nvcc" if found is None or found[1] == 12 else "nvidia.cu13"
    if found is None or not has_module(f"jax_plugins.xla_cuda{found[1]}") or not has_module(nvcc):
        wheels = " ".join(f"jax-cuda12-{part}=={jax.__version__}" for part in ("plugin", "pjrt"))
        raise NoPlugin(
            "compiling for a GPU that is not here needs jax's CUDA plugin and NVIDIA's compiler, but neither a GPU nor "
            f"a driver: pip install {wheels} nvidia-cuda-nvcc-cu12 (or 'jaxphoton[cuda12]', which has cuDNN, too)"
        )


def has_module(name: str) -> bool:
    """Whether a module is installed; imports no more than the packages that it lies in."""
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def compile_for(
    mesh: Mesh,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    donated: tuple[int, ...],
    options: Mapping[str, Any],
) -> Any:
    """The compiled program, called as the function is, for GPUs of `Gpu.mesh`.

    `arguments` are trees of jax.ShapeDtypeStruct: those without a sharding on that mesh lie whole on each GPU.
    `options` are XLA's, for this program alone.
    """
    whole = NamedSharding(mesh, PartitionSpec())

    def placed(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        there = isinstance(leaf.sharding, NamedSharding) and leaf.sharding.mesh == mesh
        return leaf if there else jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole)

    # From jax 0.11 on Triton asks the mesh, not the arguments, which GPU it lowers for.
    with use_abstract_mesh(mesh.abstract_mesh):
        traced = jax.jit(function, donate_argnums=donated).trace(*jax.tree.map(placed, arguments))
        return traced.lower(lowering_platforms=("cuda",)).compile(dict(options))
