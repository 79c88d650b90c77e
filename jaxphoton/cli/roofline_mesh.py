"""The part of `jaxphoton roofline --mesh` that people read: GPUs that share a model against replicas."""

from __future__ import annotations

from typing import Any

NOTE = """\
one: on one GPU. replicas: the same work by as many replicas. The rest: by GPUs that share the model, over that link.
A star is quicker than replicas are. Sums take 6 us and 2 us a hop, links reach 0.8 of their bandwidth, and a step has
10 kernels a layer (around Llama 14) with 1.3 us between them: jaxphoton/measure/mesh_roofline.py says where each is
from."""


def show_mesh(report: dict[str, Any]) -> None:
    parts, mesh = report["mesh"]["parts"], report["mesh"]
    links = list(parts[0]["mesh_ms"])
    print(f"\nshared by {mesh['devices']} GPUs ({mesh['shape']}), or as many replicas; ms")
    heads = (f"{name:>9}" for name in (*links, "replicas"))
    print("".join([f"{'':<14} {'MB a GPU':>9} {'sums':>5} {'MB':>7} {'gathers MB':>11} {'one':>8}", *heads]))
    for part in parts:
        figures = f"{part['bytes_a_chip'] / 1e6:9.1f} {part['sums']:5} {part['sum_bytes'] / 1e6:7.1f}"
        times = (f"{ms:8.3f}{'*' if ms < part['replicas_ms'] else ' '}" for ms in part["mesh_ms"].values())
        one = f"{part['gather_bytes'] / 1e6:11.1f} {part['one_ms']:8.3f}"
        print("".join([f"{part['part']:<14} {figures} {one}", *times, f"{part['replicas_ms']:8.3f}"]))
    print(NOTE)
