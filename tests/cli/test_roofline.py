"""`jaxphoton roofline`: its object, its tables, its picture, its refusals."""

from __future__ import annotations

import json

import pytest

from jaxphoton.cli.main import main

BENCHMARK = {
    "device": {"device": "Some GPU", "copy_gb_s": 4300.0, "matmul_tflop_s": 700.0},
    "step": {
        "context": 850,
        "parameters": 1_927_237_104,
        "steps": [{"rows": 1, "device_ms": 1.3, "depth2_ms": 1.5}],
    },
}


@pytest.fixture
def measured(tmp_path) -> str:
    path = tmp_path / "gpu_check.json"
    path.write_text(json.dumps(BENCHMARK), encoding="utf-8")
    return str(path)


def test_floors_of_a_named_gpu(capsys):
    assert main(["roofline", "--gpu", "h200", "--rows", "1,32", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["gpu"] == {"name": "H200", "source": "datasheet", "gb_s": 4800.0, "tflop_s": 989.0}
    parts = {part["part"]: part for part in report["parts"]}
    assert parts["boxes 32"]["floor_ms"] == pytest.approx(parts["boxes 32"]["bytes"] / 4.8e9)
    assert [step["rows"] for step in report["batches"]][-1] == 256
    assert report["knee"]["kv_over_weights"] == 16 and report["measured"] == []


def test_the_figures_of_a_benchmark(measured, capsys):
    assert main(["roofline", "--measured", measured, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    parts = {part["part"]: part["floor_ms"] for part in report["parts"]}
    assert [round(parts[f"boxes {rows}"], 2) for rows in (1, 8, 32)] == [0.68, 0.95, 1.88]
    assert [line["part"] for line in report["measured"]] == ["step 1", "tick 1"]
    assert report["measured"][0]["times_floor"] == pytest.approx(1.3 / parts["step 1"])


def test_a_program_measured_in_another_way_has_the_same_floor(tmp_path, capsys):
    programs = [{"program": f"encode 1 x 5{way}", "ms": 4.0} for way in ("", ", XLA attention")]
    file = tmp_path / "gpu_check.json"
    file.write_text(json.dumps({**BENCHMARK, "encode": {"programs": programs}}), encoding="utf-8")
    assert main(["roofline", "--measured", str(file), "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["measured"][:2]
    assert second == {**first, "part": "encode 1 x 5, XLA attention"}


def test_tables_are_for_people(measured, capsys):
    assert main(["roofline", "--measured", measured]) == 0
    text = capsys.readouterr().out
    for part in ("Some GPU (measured, gpu_check.json)", "encode 1 x 13", "bandwidth", "tokens/s", "times floor"):
        assert part in text


def test_a_benchmark_of_another_model_lends_its_figures_alone(measured, capsys):
    assert main(["roofline", "--model", "moondream-0.5b", "--measured", measured]) == 0
    text = capsys.readouterr().out
    assert "nothing to compare" in text and "1,927,237,104" in text and "times floor" not in text


def test_a_picture(measured, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "roofline.png"
    assert main(["roofline", "--measured", measured, "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--gpu", "H900"], "H900"),
        (["--measured", "nowhere.json"], "nowhere.json"),
        (["--gpu", "H200", "--model", "nowhere"], "no model 'nowhere'"),
    ],
)
def test_refusals_name_the_fault(arguments, fault, capsys):
    assert main(["roofline", *arguments]) == 1
    assert fault in capsys.readouterr().err


def test_steps_by_the_form_of_the_weights(capsys):
    assert main(["roofline", "--gpu", "h200", "--rows", "1,32", "--quantize", "int8", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    forms = {form["form"]: form for form in report["forms"]}
    assert list(forms) == ["bfloat16", "int8", "float8", "int4", "int4-64"]
    part = next(part for part in report["parts"] if part["part"] == "step 32")
    assert part["floor_ms"] == forms["int8"]["floor_ms"]["32"] < forms["bfloat16"]["floor_ms"]["32"]
    assert forms["int4"]["weight_bytes"] < 0.28 * forms["bfloat16"]["weight_bytes"]
    assert main(["roofline", "--gpu", "h200"]) == 0
    assert "steps of texts by the form of the weights" in capsys.readouterr().out


def test_a_mesh_against_replicas(capsys):
    given = ["roofline", "--model", "moondream3", "--gpu", "H200", "--mesh", "expert=2"]
    assert main([*given, "--rows", "1,8", "--json"]) == 0
    mesh = json.loads(capsys.readouterr().out)["mesh"]
    parts = {part["part"]: part for part in mesh["parts"]}
    assert mesh["devices"] == 2 and {"step 1", "step 8", "encode 1 x 13", "encode 2 x 13", "prefix 1"} <= parts.keys()
    step = parts["step 8"]
    # 24 layers have a sum each and, with tau, another; the embeddings are one more.
    assert (step["sums"], step["gathers"], step["gather_bytes"]) == (49, 1, 4 * 8 * 51_200)
    assert step["together_ms"]["NVLink"] < step["together_ms"]["PCIe 5"] < step["together_ms"]["PCIe 4"]
    assert main(given) == 0
    assert "shared by 2 GPUs (expert=2), or as many replicas" in capsys.readouterr().out
    for mesh, fault in (("expert=3", "1, 2 would"), ("data=2", "no GPUs share a model")):
        assert main([*given[:-1], mesh]) == 1
        assert fault in capsys.readouterr().err
