"""`--coordinator`: one model over the devices of several processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jaxphoton.cli.main import main

EXAMPLES = Path(__file__).parents[2] / "examples" / "shapes"
MESH = ["--mesh", "model=2"]
PLACE = ["--coordinator", "127.0.0.1:9", "--processes", "2", "--process", "0"]


@pytest.mark.parametrize(
    "options, fault",
    [
        (PLACE, "give --mesh"),
        ([*PLACE, *MESH, "--replicas", "2"], "give neither --replicas nor data="),
        ([*PLACE, "--mesh", "model=2,data=2"], "give neither --replicas nor data="),
        ([*MESH, *PLACE[:2]], "--coordinator, --processes and --process belong together"),
        ([*MESH, *PLACE[2:]], "--coordinator, --processes and --process belong together"),
        ([*MESH, "--coordinator", "here", *PLACE[2:]], "--coordinator is HOST:PORT or auto, not 'here'"),
        ([*MESH, *PLACE[:4], "--process", "2"], "--process is 0 to 1, not 2"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, fault, capsys):
    assert main(["caption", str(EXAMPLES), *options]) == 1
    assert fault in capsys.readouterr().err


@pytest.fixture
def pictures(tmp_path) -> Path:
    import numpy as np
    from PIL import Image

    from jaxphoton.measure.shapes.scenes import make_scene

    random, folder = np.random.default_rng(0), tmp_path / "pictures"
    folder.mkdir()
    for number in range(30):
        Image.fromarray(make_scene(random, (1, 1)).pixels).save(folder / f"{number:02}.png")
    return folder


class Together:
    """The processes of one run. Warnings of a JAX that looks for others go where all they print goes."""

    def __init__(self, pictures: Path, out: Path):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            place = f"127.0.0.1:{sock.getsockname()[1]}"
        command = ["caption", pictures, "--out", out, *MESH, "--rows", "4", "--workers", "1"]
        command += ["--coordinator", place, "--processes", "2", "--process"]
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "jaxphoton", *map(str, command), str(number)],
                env=os.environ | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONUNBUFFERED": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for number in range(2)
        ]

    def until(self, text: str) -> None:
        """Reads what the first prints until there is this in a line."""
        stream = self.processes[0].stdout
        assert stream is not None and any(text in line for line in stream), f"it ended without {text!r}"

    def ended(self) -> list[tuple[int, str]]:
        """(exit code, what it has printed) of each."""
        said = [process.communicate(timeout=1500)[0] for process in self.processes]
        return [(process.returncode, text) for process, text in zip(self.processes, said, strict=True)]

    def __enter__(self) -> Together:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


def captions(out: Path) -> dict[str, str]:
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len({line["key"] for line in lines}) == len(lines) == 30
    return {line["key"]: line["caption"] for line in lines}


@pytest.mark.slow
def test_two_processes_share_a_model_and_a_lost_one_ends_the_run(pictures, tmp_path, monkeypatch):
    """Whichever is killed, the other ends by itself and says which is gone; the same command goes on where the run
    ended, and what comes of it is what one process alone says."""
    out, alone = tmp_path / "out.jsonl", tmp_path / "alone.jsonl"
    for killed, (other, fault) in ((1, (0, "process 1 of 2 (127.0.0.1) is gone")), (0, (1, "process 0 of 2"))):
        with Together(pictures, out) as together:
            together.until(".png: ")
            together.processes[killed].kill()
            code, said = together.ended()[other]
        assert code != 0 and not out.exists()
        # JAX's own service may notice the end of process 0, on which it runs, before we do, and then ends this one.
        assert fault in said or "JAX distributed service detected fatal errors" in said
    with Together(pictures, out) as together:
        ended = together.ended()
    assert [code for code, _ in ended] == [0, 0], ended
    assert "done before" in ended[0][1]
    assert main(["caption", str(pictures), "--out", str(alone), "--rows", "4", "--workers", "1"]) == 0
    assert captions(out) == captions(alone)
