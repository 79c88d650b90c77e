"""Steps and images of a model that several GPUs share: the floor of a share, what the GPUs tell each other, and the
same work on replicas.

A sum over n GPUs is a ring: each sends 2 (n - 1) / n of the bytes in 2 (n - 1) hops; a gather half of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxphoton.config.mesh import MeshError
from jaxphoton.measure.chips import Chip
from jaxphoton.measure.cost_model import collectives, costs_of, storage_of
from jaxphoton.measure.mesh import planned_split
from jaxphoton.measure.roofline import CROPS, Floor, cost_of, floor_of
from jaxphoton.models.costs import Collective
from jaxphoton.models.protocol import Family

# Small sums over 2, 4 and 8 A100 took NCCL's ring 10, 17 and 34 us (NVIDIA/nccl-tests#123); in a CUDA graph over a PCIe
# switch, four GPUs, 19 us (haohervchb/sglang-V100#2). Sums in the switch of newer NVLinks were seen at 6 us of two H100
# (NVIDIA/nccl#1259) and 2.3 us of eight H200 (NVIDIA/nccl#1940): whether XLA's get there is not known.
START_S, HOP_S = 6e-6, 2e-6
PCIE = {"PCIe 5": 64e9, "PCIe 4": 32e9}  # bytes a second each way of 16 lanes, from the standards
REACHED = 0.8  # of a link's bandwidth: assumed
# The pause between two kernels of a CUDA graph, of an H100 (Hazy Research, 2025-05-27), and the kernels of a layer as
# compiled for an H200 (docs/decisions.md): they stay where a layer's bytes become fewer.
KERNEL_S, KERNELS, LLAMA_KERNELS = 1.3e-6, 10, 14


@dataclass(frozen=True, slots=True)
class Shared:
    """A part of the work on GPUs that share a model.

    Attributes:
      one, share, replica: floors on one GPU, of a share on the busiest one, and of what one of as many replicas does.
      together: what the GPUs do together.
      devices: how many they are.
      pauses_s: between kernels.
    """

    one: Floor
    share: Floor
    replica: Floor
    together: Sequence[Collective]
    devices: int
    pauses_s: float

    @property
    def one_s(self) -> float:
        return self.one.seconds + self.pauses_s

    @property
    def replica_s(self) -> float:
        return self.replica.seconds + self.pauses_s

    def mesh_s(self, bandwidth: float) -> float:
        """Over a link of so many bytes a second each way."""
        waits = sum(together_s(each, self.devices, bandwidth) for each in self.together)
        return self.share.seconds + self.pauses_s + waits

    def as_json(self, links: Mapping[str, float]) -> dict:
        return {
            "part": self.one.name,
            "bytes_a_chip": self.share.cost.bytes,
            "sums": sum(each.count for each in self.together if each.kind == "sum"),
            "sum_bytes": sum(each.count * each.bytes for each in self.together if each.kind == "sum"),
            "gathers": sum(each.count for each in self.together if each.kind == "gather"),
            "gather_bytes": sum(each.count * each.bytes for each in self.together if each.kind == "gather"),
            "one_ms": 1e3 * self.one_s,
            "replicas_ms": 1e3 * self.replica_s,
            "together_ms": {
                name: 1e3 * sum(together_s(each, self.devices, speed) for each in self.together)
                for name, speed in links.items()
            },
            "mesh_ms": {name: 1e3 * self.mesh_s(speed) for name, speed in links.items()},
        }


def together_s(each: Collective, devices: int, bandwidth: float) -> float:
    """Seconds of sums or gathers one after another."""
    passes = (2 if each.kind == "sum" else 1) * (devices - 1)
    return each.count * (START_S + passes * HOP_S + passes / devices * each.bytes / (REACHED * bandwidth))


def links_of(chip: Chip) -> dict[str, float]:
    """Bytes a second each way, by the name of what may lie between such GPUs."""
    return ({} if chip.nvlink is None else {"NVLink": chip.nvlink}) | PCIE


def shared_parts(
    family: Family,
    chip: Chip,
    dtype: str,
    mesh: Mapping[str, int],
    rows: Sequence[int],
    context: int,
    quantize: str | None = None,
) -> list[Shared]:
    """Steps of texts, and an image and its prefix: one, and one for each GPU.

    Raises:
      MeshError: the mesh does not divide the model, with the sizes that would; or shares nothing.
    """
    split = planned_split(family, mesh)
    devices, experts = split.devices, split.ways("experts")
    if devices == 1:
        raise MeshError('on this mesh no GPUs share a model: they do on "model=2" or "expert=2"')
    crops = max(count for count in CROPS if count <= family.max_crops)
    images = sorted({1, devices})
    work = [("step", count, "") for count in rows]
    work += [("encode", count, f" x {crops}") for count in images] + [("prefix", count, "") for count in images]

    def part(kind: str, count: int, behind: str) -> Shared:
        name, fewer = f"{kind} {count}{behind}", f"{kind} {-(-count // devices)}{behind}"
        cost, less = (cost_of(each, family, dtype, context, quantize) for each in (name, fewer))
        tokens = count * (family.prefix_lengths[-1] if kind == "prefix" else 1)
        if kind == "encode":  # each device has a whole encoder, and a share of the crops
            share = costs_of(family).encode(count, -(-count * crops // devices), storage_of(dtype, quantize))
        else:
            share = cost.shared(devices, costs_of(family).busiest(tokens, experts))
        one, own, replica = (floor_of(name, each, chip, dtype) for each in (cost, share, less))
        kernels = KERNELS if family.name == "moondream" else LLAMA_KERNELS
        pauses = KERNEL_S * kernels * family.cache.n_layers if kind == "step" else 0.0
        return Shared(one, own, replica, collectives(family, dtype, name, devices), devices, pauses)

    return [part(*each) for each in work]
