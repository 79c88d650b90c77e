"""What XLA is told for a program depends on where, and by how many devices, it is run."""

from __future__ import annotations

from jaxphoton.engine.places import GRAPHS, options
from kernels_pallas.dispatch import Target

GPU = Target("cuda", 90, 132)


def test_collectives_stay_in_the_graphs_of_a_mesh_of_gpus(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    listed = options(GPU, 2)[GRAPHS].split(",")
    assert {"FUSION", "CUSTOM_CALL", "COLLECTIVES"} <= set(listed) and len(set(listed)) == len(listed)
    assert options(GPU, 1) == options(Target("cpu"), 8) == options(None, 8) == {}


def test_a_list_of_graphs_of_the_users_own_stands(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to=x --{GRAPHS}=")
    assert options(GPU, 2) == {}
