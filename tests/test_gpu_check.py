"""The GPU check runs from end to end on any machine in miniature; only its figures need a GPU."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxphoton.config import STEP_PARTS, step_parts
from jaxphoton.config.gpus import read_forms
from jaxphoton.engine.control import RUNNING, Output
from jaxphoton.engine.programs import step
from jaxphoton.measure import roofline, timing
from jaxphoton.measure.chips import read_benchmark
from jaxphoton.measure.timing import BATCHES, interleaved
from scripts import gpu_check
from scripts.gpu import forms, kernels, mesh, ops, parts, table, variants
from scripts.gpu.load import Stepper
from scripts.models import family_named

ROOT = Path(__file__).parents[1]
COMMAND = (sys.executable, str(ROOT / "scripts" / "gpu_check.py"), "--model", "small")


def run(folder: Path, *arguments: str) -> tuple[int, dict]:
    """Exit code and results of the whole command."""
    done = subprocess.run([*COMMAND, "--out", str(folder), *arguments], capture_output=True, timeout=400)
    return done.returncode, json.loads((folder / "gpu_check.json").read_text(encoding="utf-8"))


def test_a_part_that_fails_is_reported_and_the_others_go_on(tmp_path):
    code, results = run(tmp_path, "--goldens", str(tmp_path / "nowhere"), "--only", "verify", "--only", "device")
    assert code == 1
    assert "nowhere" in results["verify"]["error"] and "error" not in results["device"]
    assert results["device"]["copy_gb_s"] > 0 and results["device"]["packages"]["jax"] == jax.__version__
    readable = (tmp_path / "gpu_check.txt").read_text(encoding="utf-8")
    assert "nowhere" in readable and "matmul_tflop_s" in readable


def test_what_there_is_no_time_for_is_skipped(tmp_path):
    code, results = run(tmp_path, "--minutes", "0")
    assert code == 0
    assert set(results) == {"run", *gpu_check.PARTS}
    assert results["run"]["commit"] and all("skipped" in results[part] for part in gpu_check.PARTS)


def test_one_device_is_no_mesh(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: ["the only one"])
    for part in (mesh.mesh, mesh.mesh_steps):
        found = list(part(argparse.Namespace(model="small")))
        assert found == [{"skipped": "1 device here; a mesh takes at least two"}]


@pytest.mark.slow
def test_a_mesh_answers_as_one_device_and_its_steps_are_timed_beside(tmp_path):
    code, results = run(tmp_path, "--only", "mesh")
    assert code == 0 and results["mesh"]["failed"] == []
    assert {line["requests"] for line in results["mesh"]["mesh against oracle"]} == {9}
    steps = {(line["mesh"], line["rows"]): line for line in results["mesh"]["steps"]}
    assert set(steps) == {(shape, rows) for shape in ("one device", "model=2") for rows in (1, 8)}
    whole, share = (steps[shape, 8]["parameters_gb"] for shape in ("one device", "model=2"))
    assert whole / 2 < share < whole and all(line["device_ms"] > 0 for line in steps.values())


def test_other_models_have_the_parts_that_are_of_any_model():
    refused = subprocess.run(
        [*COMMAND[:2], "--model", "joycaption", "--only", "equality"], capture_output=True, text=True, timeout=60
    )
    assert refused.returncode == 2 and "joycaption has no part equality; it has device, kernels" in refused.stderr
    assert set(gpu_check.OTHERS) <= set(gpu_check.PARTS)


@pytest.mark.parametrize("name", ["joycaption", "smolvlm2"])
def test_operations_are_timed_at_a_model_s_sizes(name):
    family = family_named(name)
    for op in ops.names_for(family):
        compared, timed = ops.cases_of(op, small=False, family=family)
        assert timed and len(compared) > len(timed)
        heads = {(case.heads, case.kv_heads, case.head_dim) for case in timed if hasattr(case, "head_dim")}
        assert heads <= {(family.heads, family.cache.n_kv_heads, family.cache.head_dim)}
        assert all(case.columns >= family.vocab_size for case in timed if hasattr(case, "columns"))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["small-joycaption", "small-smolvlm2"])
def test_another_model_is_measured_from_end_to_end(tmp_path, model):
    parts = ("device", "step", "encode", "captions", "forms")
    command = [*COMMAND[:2], "--model", model, "--out", str(tmp_path), *(f"--only={part}" for part in parts)]
    assert subprocess.run(command, capture_output=True, timeout=900).returncode == 0
    results = json.loads((tmp_path / "gpu_check.json").read_text(encoding="utf-8"))
    assert [line["rows"] for line in results["step"]["steps"]] == [1, 8]
    programs = [line["program"] for line in results["encode"]["programs"]]
    assert programs[0] == "encode 1 x 1" and any(name.startswith("prefix 1 x ") for name in programs)
    assert results["captions"]["captions"][0]["captions"] == 8
    assert [line["form"] for line in results["forms"]["forms"]] == ["xla", "attention"]
    benchmark = read_benchmark(tmp_path / "gpu_check.json")
    family = family_named(model)
    assert all(roofline.cost_of(name, family, "float32", 60).flops for name in benchmark.seconds)


def test_an_unknown_part_is_refused():
    refused = subprocess.run([*COMMAND, "--only", "levitation"], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2 and "unknown part levitation" in refused.stderr


def test_a_part_that_hangs_is_killed_with_its_children_and_keeps_what_it_found(tmp_path, monkeypatch):
    hanging = tmp_path / "python"
    hanging.write_text(f'#!/bin/sh\necho \'{{"copy": 1}}\' > "$5"\nsleep 300 & echo $! > {tmp_path}/child\nwait\n')
    hanging.chmod(0o755)
    monkeypatch.setattr(gpu_check, "sys", SimpleNamespace(executable=str(hanging)))
    args = argparse.Namespace(out=tmp_path, goldens=None, model="small")
    result = gpu_check.run_part("device", args, tmp_path, 2.0)
    assert "still running after 2 s" in result["error"] and result["copy"] == 1
    child = int((tmp_path / "child").read_text())
    for _ in range(200):
        if not alive(child):
            return
        time.sleep(0.05)
    raise AssertionError("the part's child is still running")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_every_part_has_a_function():
    assert {part.function or name for name, part in gpu_check.PARTS.items()} == set(parts.MODULES)


def test_other_flags_never_meet_the_shared_cache(tmp_path):
    for name, part in gpu_check.PARTS.items():
        environment = gpu_check._environment(part, tmp_path, tmp_path)
        assert bool(part.xla_flags) == (environment.get("JAX_ENABLE_COMPILATION_CACHE") == "false"), name
        assert part.xla_flags in environment["XLA_FLAGS"]


def test_the_table_joins_flags_and_shows_faults():
    whole = {
        "run": {"date": "today"},
        "step": {"ticks": [{"rows": 1, "ms": 0.5}, {"rows": 8, "idle": 2.0}], "failed": ["no kernels"], "seconds": 3.0},
        "flag-none": {"device_ms": 1.25},
        "flag-other": {"device_ms": 2.5, "call_ms": 0.125},
        "flag-broken": {"error": "exit code 1\nunknown flag"},
    }
    shown = table.render(whole)
    assert shown.count("device_ms") == 1 and "1.25" in shown and "0.125" in shown
    assert "no kernels" in shown and "unknown flag" in shown and "idle" in shown


def test_results_are_json_whatever_was_measured(tmp_path):
    parts.write(tmp_path / "r.json", {"a": [{"b": float("nan")}], "c": (1.5, float("inf"))})
    strict = json.loads((tmp_path / "r.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert strict == {"a": [{"b": "nan"}], "c": [1.5, "inf"]}


def test_noise_is_uniform_and_depends_on_its_seed():
    a, b = (np.asarray(timing.random_array((64, 1024), jnp.float32, seed)) for seed in (0, 1))
    assert abs(a.mean()) < 0.01 and abs(a.std() - 3**-0.5) < 0.01
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(a[:, 1:].ravel(), a[:, :-1].ravel())[0, 1]) < 0.02


def test_variants_take_turns():
    order = []
    launches = {name: partial(order.append, name) for name in "ab"}
    assert set(interleaved(launches)) == {"a", "b"}
    turns = [name for name, before in zip(order, [None, *order], strict=False) if name != before]
    assert turns == ["a", "b"] * (1 + BATCHES)


def test_one_step_is_always_under_way():
    events = []
    numbers = iter(range(100))

    def launch() -> int:
        events.append(("launch", number := next(numbers)))
        return number

    timing.pipelined(launch, lambda n: None, lambda n: events.append(("take", n)), 4)
    taken = [number for name, number in events if name == "take"]
    assert taken == list(range(4 + timing.WARM_UP))
    assert all(events.index(("launch", n + 1)) < events.index(("take", n)) for n in taken[:-1])


@pytest.mark.parametrize("name", ops.NAMES)
def test_a_chain_is_its_calls_one_after_the_other(name):
    case = ops.cases_of(name, small=True)[1][0]
    arrays, static = ops.arguments_of(name, case)
    arrays = jax.device_put(arrays)
    chained = jax.jit(ops.chain(ops.on_layer(name, static, "reference"), 2))(ops.spread(arrays, static, 2))
    once = jax.jit(ops.call(name, static, "reference"))
    out = once(arrays)
    again = once(arrays | ops.following(arrays, out))
    if name in ops.CHANGED:  # the pool of a chain has other layers
        chained, again = chained[0], again[0]
    needed = np.isfinite(np.asarray(again[1])) if isinstance(again, tuple) else None
    assert ops.error(chained, again) < 1e-5 and ops.other_tokens(chained, again, needed) == 0


def test_a_wrong_kernel_is_found_out(monkeypatch):
    case = ops.cases_of("paged_attention", small=True)[0][0]
    right = ops.call

    def wrong(name, static, backend):
        exact = right(name, static, "reference")
        return exact if backend == "reference" else lambda arrays: factor * exact(arrays)

    monkeypatch.setattr(ops, "call", wrong)
    for factor, verdict in ((1.0, "ok"), (1.001, "error"), (jnp.nan, "error")):
        factor = jnp.float32(factor)
        assert kernels._compare("paged_attention", case)["verdict"].startswith(verdict)


def test_every_form_of_a_step_is_tried_once():
    names = forms.every_form(family_named("small"))
    assert names[0] == "xla" and names[-1] == "fused" and len(names) == 2 ** len(STEP_PARTS)
    assert len({step_parts(name) for name in names}) == len(names) and None not in map(step_parts, names)


def test_only_what_is_clearly_faster_replaces_xla(tmp_path):
    assert forms.fastest({"xla": 1.0, "norm": 0.995, "fused": 1.2}) == "xla"
    assert forms.fastest({"xla": 1.0, "norm": 0.97, "fused": 0.9}) == "fused"
    assert forms.fastest({"norm": 0.97, "fused": 0.9}) == "fused"
    assert gpu_check.keep_forms(tmp_path, {}, {}) is None and not list(tmp_path.iterdir())


def test_what_was_chosen_is_a_file_of_the_package(tmp_path):
    found = {"device_kind": "NVIDIA H200", "step_forms": {"1": "fused"}, "layers": 8, "forms": [{"form": "fused"}]}
    file = gpu_check.keep_forms(tmp_path, {"date": "today"}, found)
    assert file == tmp_path / "nvidia-h200.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    assert read_forms(data) == {1: "fused"} and data["measured"]["date"] == "today"


def test_measured_steps_decode_and_stacked_matrices_change_nothing():
    load = variants.small_load("small", (1, 8))
    control, params = load.control(1), load.decoder
    family = load.programs.program_config
    forms = {"plain": (partial(step, family), params), "stacked": (_stacked(family), variants._stack(params))}
    tokens = {}
    for name, (function, weights) in forms.items():
        launch = Stepper(load.state()).launch(jax.jit(function, donate_argnums=(1, 2)), weights, control)
        outputs = [np.asarray(launch()) for _ in range(4)]
        assert all(out[:, Output.FINISH].tolist() == [RUNNING] for out in outputs)
        tokens[name] = [int(out[0, Output.TOKEN]) for out in outputs]
    assert tokens["plain"] == tokens["stacked"]


def _stacked(family):
    return partial(variants._stacked_step, family)
