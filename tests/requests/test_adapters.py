"""Adapters by name: registered, found in a folder, and nothing else of the disk."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from jaxphoton.config import EngineConfig
from jaxphoton.models.adapters import Adapter, LowRank
from jaxphoton.models.naming import WeightsError
from jaxphoton.requests import adapters as module
from jaxphoton.requests.adapter_folder import AdapterFolder
from jaxphoton.requests.adapters import AdapterPlaces, AdapterRegistry, with_room
from jaxphoton.requests.errors import UnknownAdapter, UnusableAdapter


def adapter(name="cats", rank=4, source=""):
    pair = LowRank(np.zeros((rank, 2), np.float32), np.zeros((3, rank), np.float32))
    return Adapter(name, name.encode(), {"text.blocks.0.mlp.fc1": pair}, source)


class Loader:
    """Notes what is read; a path that ends in "broken" cannot be."""

    def __init__(self):
        self.read = []

    def __call__(self, path, *, name):
        self.read.append(str(path))
        if str(path).endswith("broken"):
            raise WeightsError(f"{path}: no pairs")
        return adapter(name, source=str(path))


@pytest.fixture
def folder(tmp_path):
    """Of adapters, beside something else."""
    root = tmp_path / "adapters"
    for name in ("cats", "tune@7", "run/120", "broken"):
        (root / name).mkdir(parents=True)
        (root / name / "adapter_config.json").touch()
    for name in ("dogs.safetensors", "final.pt", "notes.txt", ".hidden.pt", "run/240.pt"):
        (root / name).touch()
    (tmp_path / "secret.pt").touch()
    (root / "link.pt").symlink_to(tmp_path / "secret.pt")
    (root / "away").symlink_to(tmp_path)
    (root / "again").symlink_to(root / "cats")
    (root / "circle").symlink_to(root / "circle")
    return root


def test_names_of_a_folder(folder):
    found = AdapterFolder(folder)
    assert found.names() == ("again", "broken", "cats", "dogs", "final", "run@120", "run@240", "tune@7")
    assert found.find("run@120") == folder / "run" / "120" and found.find("tune@7") == folder / "tune@7"
    assert found.find("dogs") == folder / "dogs.safetensors" == found.find("dogs.safetensors")
    assert found.find("run@240") == folder / "run" / "240.pt" and found.find("again") == folder / "cats"


def test_several_files_in_a_folder_are_steps_whatever_they_are_called(tmp_path):
    for name in ("run/checkpoint-5.pt", "run/checkpoint-10.pt", "both/final.pt", "both/final.safetensors", "one/7.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = AdapterFolder(tmp_path)
    assert found.names() == ("both", "one@7", "run@checkpoint-10", "run@checkpoint-5")
    assert found.find("run") is None and found.find("run@checkpoint-5") == tmp_path / "run" / "checkpoint-5.pt"
    assert found.find("both") == tmp_path / "both"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            ".",
            "..",
            "../secret",
            "../secret.pt",
            "..@secret",
            "cats@..",
            "cats/adapter_config.json",
            "run/120",
            "run",
        ),
        *("link", "link.pt", "away@secret", "away", "circle", ".hidden", ".hidden.pt", "nobody", "nobody@1", "@7"),
        *("/etc/passwd", "cats\0", "cats\n", " cats", "a\\\\b", "x" * 5000, "x" * 150 + "@" + "y" * 300, None, 3),
    ],
)
def test_no_name_leads_out_of_the_folder(folder, name):
    assert AdapterFolder(folder).find(name) is None
    registry = AdapterRegistry(loader := Loader(), AdapterFolder(folder))
    assert name not in registry and name not in AdapterPlaces((), AdapterFolder(folder))
    with pytest.raises(UnknownAdapter, match="there is no adapter"):
        registry.get(name)
    assert not loader.read


def test_a_folder_must_be_there(tmp_path):
    with pytest.raises(NotADirectoryError, match="no folder of adapters"):
        AdapterFolder(tmp_path / "none")


def test_what_is_registered_goes_before_what_is_in_the_folder(folder):
    registry = AdapterRegistry(loader := Loader(), AdapterFolder(folder))
    registry.register("cats", mine := registry.read("cats", "elsewhere"))
    assert registry.get("cats") is mine and loader.read == ["elsewhere"]
    assert registry.names()[0] == "cats" and registry.names().count("cats") == 1
    registry.forget("cats")
    assert registry.get("cats").source == str(folder / "cats")
    with pytest.raises(UnknownAdapter, match="no adapter 'cats' was registered"):
        registry.forget("cats")


def test_another_takes_the_name():
    registry = AdapterRegistry(Loader())
    for source in ("first", "second"):
        registry.register("cats", registry.read("cats", source))
    assert registry.get("cats").source == "second" and registry.names() == ("cats",)


def test_one_of_the_folder_is_read_once_however_many_ask(folder):
    gate = threading.Barrier(8)
    registry = AdapterRegistry(loader := Loader(), AdapterFolder(folder))

    def ask(_):
        gate.wait(30)
        return registry.get("tune@7")

    with ThreadPoolExecutor(8) as threads:
        assert len({id(each) for each in threads.map(ask, range(8))}) == 1
    assert loader.read == [str(folder / "tune@7")]


def test_only_the_last_of_a_folder_are_kept(folder, monkeypatch):
    monkeypatch.setattr(module, "KEPT", 2)
    registry = AdapterRegistry(loader := Loader(), AdapterFolder(folder))
    for name in ("cats", "dogs", "cats", "final", "cats", "dogs"):
        registry.get(name)
    assert [path.rsplit("/")[-1] for path in loader.read] == [
        "cats",
        "dogs.safetensors",
        "final.pt",
        "dogs.safetensors",
    ]


def test_one_that_cannot_be_read_says_so_each_time(folder):
    registry = AdapterRegistry(loader := Loader(), AdapterFolder(folder))
    for _ in range(2):
        with pytest.raises(UnusableAdapter, match="adapter 'broken' cannot be used: .*: no pairs"):
            registry.get("broken")
    assert len(loader.read) == 2


def ranked(engine=None, folder=None, **ranks):
    registry = AdapterRegistry(Loader(), folder)
    for name, rank in ranks.items():
        registry.register(name, adapter(name, rank))
    made = with_room(engine or EngineConfig(), registry, lambda each: each.rank)
    return made.adapter_slots, made.adapter_rank


def test_an_engine_has_the_room_that_is_needed(folder):
    assert ranked() == (0, EngineConfig().adapter_rank)
    assert ranked(a=1) == (1, 8) and ranked(a=9, b=3) == (2, 16) and ranked(a=16) == (1, 16)
    assert ranked(**{f"n{number}": 33 for number in range(9)}) == (4, 64)
    assert ranked(folder=AdapterFolder(folder)) == (4, 32) and ranked(folder=AdapterFolder(folder), a=33) == (4, 64)
    assert ranked(EngineConfig(adapter_slots=7, adapter_rank=5), a=5) == (7, 5)
    with pytest.raises(ValueError, match="adapter 'a' has rank 6, and the engine takes up to 5"):
        ranked(EngineConfig(adapter_slots=7, adapter_rank=5), a=6)


def test_unknown_names_are_told_which_there_are():
    registry = AdapterRegistry(Loader())
    registry.register("cats", adapter())
    with pytest.raises(UnknownAdapter, match="no adapter 'dogs' here; there is cats"):
        registry.get("dogs")
    with pytest.raises(TypeError, match="must be a path or an Adapter, not int"):
        registry.read("cats", 3)  # type: ignore[arg-type]
    for name in ("a/b", ".a", "", " a", "a\n", "a" * 201):
        with pytest.raises(ValueError, match="the name of an adapter"):
            registry.read(name, "elsewhere")
    with pytest.raises(TypeError, match="the name of an adapter must be a text"):
        registry.read(3, "elsewhere")  # type: ignore[arg-type]
