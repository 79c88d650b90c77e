"""GPUs are counted as CUDA and jax would see them."""

from __future__ import annotations

import os
import signal
import stat
import subprocess

import pytest

from jaxphoton.batch.errors import BatchError, OptionError
from jaxphoton.batch.workers import gpus
from jaxphoton.batch.workers.gpus import replica_count, replica_gpus, visible_gpus
from tests.image.pools import exists, until

PLAIN = "GPU 0: NVIDIA A (UUID: GPU-11)\nGPU 1: NVIDIA A (UUID: GPU-22)\n"
SPLIT = """\
GPU 0: NVIDIA A (UUID: GPU-11)
GPU 1: NVIDIA A (UUID: GPU-22)
  MIG 1g.10gb     Device  0: (UUID: MIG-aa)
  MIG 1g.10gb     Device  1: (UUID: MIG-bb)
"""


@pytest.fixture
def lists(tmp_path, monkeypatch):
    """Puts an `nvidia-smi` with this output on the path."""

    def lists(text: str, code: int = 0) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n[ \"$1\" = -L ] || exit 9\ncat <<'END'\n{text}END\nexit {code}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return lists


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("3", ("3",)),
        ("2, 0", ("2", "0")),
        ("0,-1,1", ("0",)),
        ("GPU-8932f937,MIG-1234", ("GPU-8932f937", "MIG-1234")),
    ],
)
def test_what_cuda_visible_devices_says(value, found, lists):
    lists(PLAIN)
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": value}) == found


@pytest.mark.parametrize(("text", "found"), [(PLAIN, ("0", "1")), (SPLIT, ("0", "MIG-aa", "MIG-bb")), ("", ())])
def test_what_nvidia_smi_says(text, found, lists):
    lists(text)
    assert visible_gpus({}) == found


def test_a_platform_without_gpus(lists):
    lists(PLAIN)
    assert visible_gpus({"JAX_PLATFORMS": "cpu"}) == visible_gpus({"JAX_PLATFORMS": "tpu,cpu"}) == ()
    assert visible_gpus({"JAX_PLATFORMS": "cuda,cpu"}) == visible_gpus({"JAX_PLATFORMS": ""}) == ("0", "1")


def test_without_nvidia_smi_the_driver_is_asked(lists, tmp_path, monkeypatch):
    lists("it is broken\n", 9)
    driver = tmp_path / "gpus"
    monkeypatch.setattr(gpus, "Path", lambda _: driver)
    assert visible_gpus({}) == ()
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (driver / name).mkdir(parents=True)
    assert visible_gpus({}) == ("0", "1")


def test_an_nvidia_smi_that_hangs_and_cannot_be_killed(lists, tmp_path, monkeypatch):
    """As one whose driver does not answer."""
    lists(PLAIN)
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nkill -STOP $$\n")
    monkeypatch.setattr(gpus, "Path", lambda _: tmp_path / "no driver")
    monkeypatch.setattr(gpus, "_ASK_S", 1.0)
    monkeypatch.setattr(gpus, "_END_S", 0.05)
    with monkeypatch.context() as driver:
        driver.setattr(subprocess.Popen, "kill", lambda self: None)
        assert visible_gpus({}) == ()
    pid = int(until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "it runs"))
    assert exists(pid)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not exists(pid), "it is reaped when the driver lets it go")


def test_replicas_get_a_gpu_each():
    none, three = {"CUDA_VISIBLE_DEVICES": ""}, {"CUDA_VISIBLE_DEVICES": "4,5,6"}
    assert replica_gpus(None, three) == ("4", "5", "6")
    assert replica_gpus(2, three) == ("4", "5")
    assert replica_gpus(None, none) == (None,)
    assert replica_gpus(2, none) == (None, None)
    with pytest.raises(BatchError, match="4 replicas need 4 GPUs, visible here: 4, 5, 6"):
        replica_gpus(4, three)


def test_replicas_of_a_mesh_get_a_group_of_gpus_each():
    none, five = {"CUDA_VISIBLE_DEVICES": ""}, {"CUDA_VISIBLE_DEVICES": "0,1,2,3,7"}
    assert replica_gpus(2, five, each=2) == ("0,1", "2,3")
    assert replica_gpus(None, {"CUDA_VISIBLE_DEVICES": "3,1,0,2"}, each=2) == ("3,1", "0,2")
    assert replica_gpus(None, none, each=2) == (None,)
    with pytest.raises(BatchError, match="5 visible GPUs cannot be shared out by 2 a replica.*at most 2"):
        replica_gpus(None, five, each=2)
    with pytest.raises(BatchError, match=r"3 replicas \(each a mesh of 2\) need 6 GPUs, visible here: 0, 1, 2, 3, 7"):
        replica_gpus(3, five, each=2)
    for wanted in (None, 1, 2):
        with pytest.raises(BatchError, match="a mesh of 2 needs 2 GPUs, visible here: 0"):
            replica_gpus(wanted, {"CUDA_VISIBLE_DEVICES": "0"}, each=2)


def test_the_mesh_may_say_how_many_replicas():
    assert replica_count(3, copies=1) == 3 and replica_count(None, copies=1) is None
    assert replica_count(1, copies=2) == 2 and replica_count(2, copies=2) == 2
    assert replica_count(0, copies=2, alone=0) == 2
    for wanted, alone in ((3, 1), (None, 1), (1, 0)):
        with pytest.raises(OptionError, match="mesh has data=2, which are replicas: replicas must be as many"):
            replica_count(wanted, 2, alone)
