"""`jaxphoton plan`: its object, its table, its picture, its refusals."""

from __future__ import annotations

import builtins
import json
import sys

import pytest

from jaxphoton.cli.main import main
from jaxphoton.cli.plan import size


@pytest.fixture(autouse=True)
def default_client(monkeypatch):
    monkeypatch.delenv("XLA_CLIENT_MEM_FRACTION", raising=False)
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)


def plan(capsys, *arguments: str) -> dict:
    assert main(["plan", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_load_and_the_gpu_for_it(capsys):
    report = plan(capsys, "--model", "moondream2", "--rows", "32", "--context", "1024")
    assert report["kv_bytes_per_position"] == 196_608 and report["max_rows"] == 32
    assert report["kv_bytes"] == report["pages"] * report["page_bytes"]
    assert report["weights_bytes"] == sum(report["weights"].values())
    parts = ("weights_bytes", "kv_bytes", "row_state_bytes", "temporaries_bytes", "activation_bytes")
    assert report["total_bytes"] == sum(report[part] for part in parts)
    assert report["smallest_gpu"] == "L4" and report["scratch_source"] == "estimated"
    more = plan(capsys, "--model", "moondream2", "--rows", "250")
    assert more["total_bytes"] > report["total_bytes"] and more["smallest_gpu"] == "B200"


def test_what_fits_a_gpu(capsys):
    filled = plan(capsys, "--gpu", "L4", "--context", "1024")
    assert filled["gpu"] == "L4" and filled["requests"]["1024"] == filled["max_rows"]
    assert filled["requests"]["2048"] < filled["max_rows"]
    assert filled["total_bytes"] + filled["reserve_bytes"] <= filled["memory_bytes"] == 24 * 10**9
    fewer = plan(capsys, "--memory", "24GB", "--context", "1024", "--rows", "5")
    assert fewer["max_rows"] == 5 and fewer["pages"] < filled["pages"]


def test_the_table_is_for_people(capsys):
    assert main(["plan", "--model", "shapes", "--memory", "8GiB", "--rows", "4"]) == 0
    text = capsys.readouterr().out
    for part in ("weights, vision", "keys and values", "temporaries", "estimated", "total", "left to the runtime"):
        assert part in text
    assert "4 requests at once of 512 positions" in text


def test_a_picture(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "plan.png"
    plan(capsys, "--gpu", "H100", "--rows", "32", "--plot", str(path))
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--model", "nowhere"], "no model 'nowhere'"),
        (["--gpu", "H900"], "H900"),
        (["--memory", "4GiB"], "one request of 2048 positions needs"),
        (["--memory", "4GiB", "--rows", "2"], "memory is too small"),
        (["--context", "5000"], "more than the model's 2048"),
        (["--plot", "nowhere/plan.png"], "nowhere/plan.png"),
        (["--mesh", "model=3"], "3 devices cannot share 32 heads evenly; 1, 2 would"),
        (["--mesh", "model=2", "--compile"], "--compile compiles for one device"),
    ],
)
def test_refusals_name_the_fault(arguments, fault, capsys):
    assert main(["plan", *arguments]) == 1
    assert fault in capsys.readouterr().err


def test_without_matplotlib_the_extra_is_named(monkeypatch, capsys, tmp_path):
    imported = builtins.__import__

    def absent(name, *arguments, **options):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return imported(name, *arguments, **options)

    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", absent)
    assert main(["plan", "--plot", str(tmp_path / "plan.png")]) == 1
    assert "pip install 'jaxphoton[plot]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [("24GiB", 24 * 2**30), ("80GB", 80 * 10**9), ("512 MiB", 2**29), ("1.5TB", 15 * 10**11), ("7", 7)],
)
def test_sizes(text, expected):
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "GiB", "-3GiB", "24 gigs", "3GiBs"])
def test_what_is_no_size(text, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(["plan", f"--memory={text}"])
    assert exit_info.value.code == 1
    assert "is not a size" in capsys.readouterr().err


def test_float8_halves_keys_and_values(capsys):
    sizes = []
    for kind in ("model", "float8"):
        assert main(["plan", "--rows", "4", "--kv-dtype", kind, "--json"]) == 0
        sizes.append(json.loads(capsys.readouterr().out)["kv_bytes"])
    assert sizes[0] == 2 * sizes[1]


def test_weights_in_few_bits_leave_room_for_more_requests(capsys):
    plain, small = (plan(capsys, "--context", "1024", *more) for more in ((), ("--quantize", "int4")))
    assert (plain["quantize"], small["quantize"]) == (None, "int4")
    assert small["weights"]["text"] < 0.35 * plain["weights"]["text"]
    assert small["weights"]["region"] == plain["weights"]["region"] and small["kv_bytes"] == plain["kv_bytes"]
    assert small["total_bytes"] - plain["total_bytes"] == small["weights_bytes"] - plain["weights_bytes"]
    assert small["fits_gb"] == plain["fits_gb"]  # of all forms
    for rows in plain["fits_gb"].values():
        assert rows["bfloat16"] <= rows["int8"] <= rows["int4"]
    assert [rows["int4"] for rows in plain["fits_gb"].values()] == sorted(r["int4"] for r in plain["fits_gb"].values())
    fitted = plan(capsys, "--context", "1024", "--quantize", "int4", "--memory", "24GB")
    assert fitted["max_rows"] == plain["fits_gb"]["24"]["int4"] and fitted["fits_gb"] is None


def test_slots_of_adapters_take_memory(capsys):
    without, slots, wide = (
        plan(capsys, "--memory", "24GB", "--rows", "60", *more)
        for more in ((), ("--adapter-slots", "4"), ("--adapter-slots", "4", "--adapter-rank", "32"))
    )
    assert "adapters" not in without["weights"]
    assert wide["weights"]["adapters"] == 2 * slots["weights"]["adapters"] > 0
    assert wide["pages"] < slots["pages"] < without["pages"]


def test_the_table_of_gpus_marks_what_does_not_fit(capsys):
    assert main(["plan", "--model", "moondream3"]) == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if " GB " in line}
    assert lines["8"][2:] == ["-"] * 5 and "-" not in lines["80"]


def test_devices_that_share_a_model_have_less_each(capsys):
    load = ("--model", "moondream3", "--rows", "8", "--context", "1024", "--adapter-slots", "2")
    one, two = (plan(capsys, *load, *more) for more in ((), ("--mesh", "model=2")))
    assert (one["mesh"], two["mesh"]) == (None, {"data": 1, "model": 2, "expert": 1})
    assert 0.5 < two["weights"]["text"] / one["weights"]["text"] < 0.51
    assert two["weights"]["region"] == one["weights"]["region"]
    assert two["weights"]["adapters"] < 0.8 * one["weights"]["adapters"]
    assert 2 * two["kv_bytes"] == one["kv_bytes"] and two["pages"] == one["pages"]
    assert two["temporaries_bytes"] < one["temporaries_bytes"] and one["fits_mesh"] is None
    by_form, by_devices = two["fits_gb"]["24"], two["fits_mesh"]["24"]
    assert by_devices["model=2"] == by_form["bfloat16"] > by_devices["model=1"] == one["fits_gb"]["24"]["bfloat16"]
    assert list(by_devices.values()) == sorted(by_devices.values()) and by_form["int4"] > by_form["int8"] > 0
    fitted = plan(capsys, *load[2:], "--model", "moondream3", "--mesh", "model=2", "--memory", "24GB", "--rows", "4")
    assert fitted["fits_mesh"] is None and fitted["total_bytes"] <= fitted["memory_bytes"]


def test_the_tables_of_a_mesh_are_for_people(capsys):
    assert main(["plan", "--model", "moondream-0.5b", "--mesh", "model=2"]) == 0
    text = capsys.readouterr().out
    assert "on each of the 2 devices" in text and "how many share the model, in bfloat16" in text


def test_what_is_no_mesh(capsys):
    with pytest.raises(SystemExit):
        main(["plan", "--mesh", "gpus=2"])
    assert "with the axes data, model, expert" in capsys.readouterr().err
