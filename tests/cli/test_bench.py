"""`jaxphoton bench`: what a program would read of it."""

from __future__ import annotations

import json

import pytest

from jaxphoton.cli.main import main

PARTS = """rows t_block_ms t_pipe_ms tokens_per_request zombie_fraction predicted_speedup predicted_from_parts
observed_speedup forward_ms sampling_ms plan_ms launch_ms wait_ms commit_ms idle_ms""".split()


def test_pipeline_reports_every_part(capsys, tmp_path):
    picture = tmp_path / "pipeline.png"
    args = ["--streams", "2", "--tokens", "4", "--context", "16", "--rounds", "1", "--no-pin", "--json"]
    assert main(["bench", "pipeline", *args, "--plot", str(picture)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["model"] == "shapes" and report["parameters"] > 2e6 and report["bytes_per_step"] > 0
    assert "device" in report
    (stream,) = report["streams"]
    assert set(PARTS) <= set(stream)
    assert (stream["rows"], stream["tokens_per_request"]) == (2, 4)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_context_that_does_not_fit_is_refused(capsys):
    assert main(["bench", "pipeline", "--context", "100000", "--no-pin"]) == 1
    assert "--context" in capsys.readouterr().err


def test_throughput_accounts_for_every_request_of_a_burst(capsys):
    args = ["--burst", "24", "--max-waiting", "8", "--max-tokens", "2", "--size", "64x48", "--json"]
    assert main(["bench", "throughput", *args]) == 0
    (load,) = json.loads(capsys.readouterr().out)["loads"]
    assert load["finished"] + load["refused"] == load["requests"] == 24
    assert load["finished"] >= 16 and load["compiled"] == 0
    assert load["total_ms"]["p99"] > 0


@pytest.mark.parametrize("option", ["--size=huge", "--concurrency=0", "--rate=0"])
def test_bad_options_are_named(capsys, option):
    with pytest.raises(SystemExit):
        main(["bench", "throughput", option])
    assert option.split("=")[0] in capsys.readouterr().err


def test_what_the_host_does_for_another_model(capsys):
    assert main(["bench", "host", "--model", "smolvlm2-256m", "--rows", "2", "--ticks", "10", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["model"] == "smolvlm2-256m" and report["rows"]["2"]["tick_us"] > 0
    assert main(["bench", "host", "--model", "nothing-of-ours"]) == 1
    assert "no model 'nothing-of-ours'" in capsys.readouterr().err
