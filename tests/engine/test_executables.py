"""Stored programs run in another process without a compile, and those of anything else are refused with the reason."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxphoton.config import EngineConfig
from jaxphoton.engine import executables
from jaxphoton.engine.executables import MANIFEST, Executables, ExecutablesError, file_name, model_facts
from jaxphoton.engine.places import DRIVERS, Here, driver, too_old

ROOT = Path(__file__).parents[2]
KEY = ("step", 8)
ENGINE = EngineConfig(max_rows=8, step_rows=(2, 8), vision=((1, 4),))
FACTS = {"jax": "0.10.2", "platform": "cuda", "capability": 90, "source": "a", "model": "b", "driver": "525.60.13"}

# Compiles and stores, or loads; then runs the same requests and says what came of them, and what was compiled.
PROCESS = """
import json, sys
import jax
from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.executables import Executables
from tests.engine.tiny import ENGINE, FAMILY, Loop, Schedule, at_once, parameters, request
import dataclasses

folder, loads = sys.argv[1], sys.argv[2] == "load"
engine = dataclasses.replace(
    ENGINE, max_rows=4, step_rows=(4,), prefill_rows=(1,), prefill_lengths=(16,), vision=((1, 4),), host_masks=False,
    kv_pages=90,
)
params = parameters()
compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: compiled.append(event) if "backend_compile" in event else None
)
programs = Programs(params, FAMILY, engine, stored=Executables.open(folder) if loads else None)
count = len(compiled)
if not loads:
    programs.store(folder)
asked = [request("text", 5, seed=1), request("detect", 9, 0, seed=6), request("point", 3, 1, seed=34)]
sequences, _ = Loop(programs).run(Schedule(at_once(*asked), rows=4, prefill_rows=1))
tokens = [[(token.id, token.bins, token.logprob) for token in sequence.tokens] for sequence in sequences]
print(json.dumps([count, tokens]))
"""


def run(folder: Path, how: str) -> list:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAXPHOTON_CACHE": ""}
    command = [sys.executable, "-c", PROCESS, str(folder), how]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_another_process_runs_stored_programs_and_compiles_none(tmp_path):
    compiled, tokens = run(tmp_path / "stored", "store")
    assert compiled == 4 and all(tokens)
    assert run(tmp_path / "stored", "load") == [0, tokens]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder in the right form, whose one program is nothing that can be run."""
    data = b"no executable"
    (tmp_path / file_name(KEY)).write_bytes(data)
    line = {"key": KEY, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest = {
        "form": executables.FORM,
        "facts": FACTS,
        "engine": dataclasses.asdict(ENGINE),
        "pages": 100,
        "programs": [line],
    }
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    return tmp_path


def test_a_manifest_comes_back_as_it_was_written(folder):
    stored = Executables.open(folder)
    assert (stored.engine, stored.pages, stored.facts, list(stored.files)) == (ENGINE, 100, FACTS, [KEY])
    stored.require(FACTS)
    stored.require_engine(ENGINE)


@pytest.mark.parametrize(
    ("here", "told"),
    [
        ({"jax": "0.12.0"}, "jax 0.10.2, here 0.12.0"),
        ({"platform": "cpu"}, "platform cuda, here cpu"),
        ({"capability": 80}, "capability 90, here 80"),
        ({"source": "x"}, "another version of jaxphoton's code"),
        ({"model": "x"}, "a model with other settings"),
        ({"processor": "x"}, "a processor of another kind"),
        ({"parameters": "x"}, "parameters of other names, shapes or dtypes"),
    ],
)
def test_what_differs_here_is_refused_by_name(folder, here, told):
    with pytest.raises(ExecutablesError) as error:
        Executables.open(folder).require(FACTS | here)
    assert told in str(error.value) and str(folder) in str(error.value)


def test_all_that_differs_is_told_at_once(folder):
    with pytest.raises(ExecutablesError, match="jax 0.10.2, here 0.12.0; capability 90, here 80"):
        Executables.open(folder).require(FACTS | {"jax": "0.12.0", "capability": 80})


@pytest.mark.parametrize("version", [None, "525.60.13", "570.86.15"])
def test_a_driver_that_is_new_enough_or_not_known_is_taken(folder, monkeypatch, version):
    monkeypatch.setattr(executables, "driver", lambda: version)
    Executables.open(folder).require(FACTS)


def test_an_old_driver_is_refused(folder, monkeypatch):
    monkeypatch.setattr(executables, "driver", lambda: "470.57.02")
    with pytest.raises(ExecutablesError, match=r"a driver of 525\.60\.13 or newer, here 470\.57\.02"):
        Executables.open(folder).require(FACTS)


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (a@b)", "570.86.15"),
        ("GCC version:  gcc version 12.2.0", None),
    ],
)
def test_the_driver_is_read_from_the_kernel(tmp_path, line, version):
    assert driver(tmp_path) is None
    (tmp_path / "proc" / "driver" / "nvidia").mkdir(parents=True)
    (tmp_path / "proc" / "driver" / "nvidia" / "version").write_text(f"{line}\nGCC version:  gcc version 11.3.0\n")
    assert driver(tmp_path) == version


def test_versions_are_compared_as_numbers():
    assert too_old("99.1", "525.60.13") and not too_old("1000.1", "525.60.13") and not too_old(None, "525.60.13")
    assert not any(too_old(each, each) for each in DRIVERS.values())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"max_rows": 4}, "max_rows 8, here 4"),
        ({"kv_dtype": "float8"}, "kv_dtype model, here float8"),
        ({"page_size": 32}, "page_size 16, here 32"),
        ({"kv_pages": 101}, "kv_pages 100, here 101"),
        ({"vision": ((1, 5),)}, "vision ((1, 4),), here ((1, 5),)"),
    ],
)
def test_settings_that_programs_depend_on_must_be_the_same(folder, changes, told):
    with pytest.raises(ExecutablesError) as error:
        Executables.open(folder).require_engine(dataclasses.replace(ENGINE, **changes))
    assert told in str(error.value)


def test_settings_that_no_program_depends_on_may_differ(folder):
    running = {"depth": 1, "max_waiting": 5, "image_workers": 0, "share_prefixes": False, "kv_pages": 100}
    Executables.open(folder).require_engine(dataclasses.replace(ENGINE, **running))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.unlink(),
        lambda file: file.write_text("{"),
        lambda file: file.write_text("[]"),
        lambda file: file.write_text(json.dumps({"form": executables.FORM})),
        lambda file: file.write_text(json.dumps(json.loads(file.read_text()) | {"form": 0})),
        lambda file: file.write_text(json.dumps(json.loads(file.read_text()) | {"engine": {"max_rows": -1}})),
        lambda file: file.write_text(json.dumps(json.loads(file.read_text()) | {"programs": [{"key": 1}]})),
    ],
)
def test_a_damaged_manifest_is_named(folder, spoil):
    spoil(folder / MANIFEST)
    with pytest.raises(ExecutablesError, match=MANIFEST):
        Executables.open(folder)


def test_missing_damaged_and_unreadable_programs_are_named(folder):
    stored, device = Executables.open(folder), jax.devices()[0]
    trees = (jax.tree.structure(((), {})), jax.tree.structure(0))
    file = folder / file_name(KEY)
    with pytest.raises(ExecutablesError, match=f"{file.name}: cannot be loaded"):
        stored.load(KEY, trees, device)
    with pytest.raises(ExecutablesError, match="holds no program step 4"):
        stored.load(("step", 4), trees, device)
    file.write_bytes(b"no executabl")
    with pytest.raises(ExecutablesError, match=f"{file.name}: damaged"):
        stored.load(KEY, trees, device)
    file.unlink()
    with pytest.raises(ExecutablesError, match=f"{file.name}: no such file"):
        stored.load(KEY, trees, device)


def test_facts_of_a_model_are_those_of_its_settings_and_of_the_shapes_of_its_parameters():
    def facts(settings, rows):
        return model_facts(settings, {"w": jax.ShapeDtypeStruct((rows, 2), jax.numpy.float32)})

    assert facts({"a": 1}, 2) == facts({"a": 1}, 2)
    assert facts({"a": 1}, 2)["model"] != facts({"a": 2}, 2)["model"]
    assert facts({"a": 1}, 2)["parameters"] != facts({"a": 1}, 3)["parameters"]
    assert facts({"a": 1}, 2)["dtypes"] == "float32"


def test_facts_of_a_processor_name_its_kind_and_no_gpu():
    facts = Here(jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])).facts()
    assert facts["platform"] == "cpu" and facts["processor"] and "capability" not in facts
    assert json.loads(json.dumps(facts)) == facts


def test_programs_are_made_from_the_measured_forms_of_steps_too(tmp_path, monkeypatch):
    measured = tmp_path / "jaxphoton" / "configs" / "gpus" / "some-gpu.json"
    measured.parent.mkdir(parents=True)
    monkeypatch.setattr(executables.resources, "files", lambda _: tmp_path / "jaxphoton")
    digests = set()
    for text in ("{}", '{"step_forms": "not measured"}'):
        measured.write_text(text)
        digests.add(executables.source_digest())
    assert len(digests) == 2
