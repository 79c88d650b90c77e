"""A device or an engine that fails is one sentence and exit code 1, in whatever command."""

from __future__ import annotations

import sys
from types import ModuleType

import jax
import pytest

from jaxphoton.cli.main import main
from jaxphoton.engine.memory import DeviceMemoryError
from jaxphoton.platform import NoDeviceError
from jaxphoton.requests.errors import EngineError, EngineStartError
from kernels_pallas.dispatch import KernelUnavailable

FAULTS = [
    EngineStartError("the engine cannot start: it is too hot"),
    EngineError("the engine has failed: it is too hot"),
    DeviceMemoryError("it is too hot"),
    KernelUnavailable("it is too hot"),
    jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: it is too hot\nand what else XLA says"),
    NoDeviceError("it is too hot"),
    MemoryError("it is too hot"),
]
names = [type(fault).__name__ for fault in FAULTS]


def refused(capsys, *argv: str) -> None:
    assert main(argv) == 1
    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if "too hot" in line]
    assert line.startswith(f"jaxphoton {argv[0]}: ") and "Traceback" not in captured.err
    assert "what else" not in captured.err and not captured.out


@pytest.mark.parametrize("fault", FAULTS, ids=names)
@pytest.mark.parametrize("where", ["start", "from_pretrained"])
@pytest.mark.parametrize("command", [["caption"], ["query", "--question", "Why?"], ["detect", "--object", "car"]])
def test_of_an_engine_that_cannot_start(model, folder, capsys, monkeypatch, command, where, fault):
    def fails(*_, **__):
        raise fault

    monkeypatch.setattr(model, where, fails)
    refused(capsys, *command, str(folder / "b.png"))


@pytest.mark.parametrize("fault", FAULTS, ids=names)
@pytest.mark.parametrize("command", ["verify", "plan", "bench", "timeline", "roofline", "convert", "export"])
def test_in_every_command(capsys, monkeypatch, command, fault):
    def fails(args):
        raise fault

    module = ModuleType("command")
    module.add_parser = lambda subparsers: subparsers.add_parser(command)  # type: ignore[attr-defined]
    module.run = fails  # type: ignore[attr-defined]
    monkeypatch.setattr("jaxphoton.cli.main.COMMANDS", (command,))
    monkeypatch.setitem(sys.modules, f"jaxphoton.cli.{command}", module)
    refused(capsys, command)


def test_a_fault_of_ours_is_not_hidden(model, folder, monkeypatch):
    def fails():
        raise AssertionError("a bug")

    monkeypatch.setattr(model, "start", fails)
    with pytest.raises(AssertionError, match="a bug"):
        main(["caption", str(folder / "b.png")])


@pytest.mark.parametrize("name", ["abacus", "cpu:99", "cpu:-1", "cpu:x"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(name):
    from jaxphoton.platform import find_device

    with pytest.raises(NoDeviceError, match="no device .*; there are: .*cpu"):
        find_device(name)


def test_no_device_at_all_is_said_with_what_was_asked_for(monkeypatch):
    from jaxphoton.platform import find_device

    def fails():
        raise AssertionError  # what jax 0.10 raises where a plugin does not start

    monkeypatch.setattr(jax, "devices", fails)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(NoDeviceError, match="jax finds no device .JAX_PLATFORMS=cuda.: its plugin"):
        find_device(None)
