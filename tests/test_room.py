"""The machine room: `benchmarks/room`, in small."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.room import cluster

ROOT = Path(__file__).parents[1]
PATIENCE = 600.0  # seconds after which a test fails; none waits so long

PARENT = """
import os, subprocess, sys
from pathlib import Path
from benchmarks.room.cluster import MARK, watch
mark, folder = sys.argv[1], Path(sys.argv[2])
watch(mark, folder)
command = [sys.executable, "-c", "import sys; print('there', flush=True); sys.stdin.read()"]
for part in ("head", "node-1"):
    left, _ = os.pipe()  # which never ends here
    os.set_inheritable(left, True)
    child = subprocess.Popen(
        command, stdin=left, stdout=subprocess.PIPE, env=os.environ | {MARK: f"{mark}:{part}"}, start_new_session=True
    )
    child.stdout.readline()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["close", "kill"])
def test_nothing_outlives_the_program_that_started_it(tmp_path, end):
    mark, folder = f"mark-{os.getpid()}-{end}", tmp_path / "room"
    folder.mkdir()
    (folder / "log").write_text("of Ray")
    parent = [sys.executable, "-c", PARENT, mark, str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(parent, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        assert sorted(cluster.marked(mark).values()) == [f"{mark}:head", f"{mark}:node-1"]
        assert list(cluster.marked(f"{mark}:node-1").values()) == [f"{mark}:node-1"]
        if end == "kill":
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=PATIENCE)  # until nobody has its output: its watch has ended, too
    assert not cluster.marked(mark) and not folder.exists()


@pytest.mark.slow
def test_nothing_is_lost_when_machines_fail():
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed: many machines are NOT tested (pip install 'ray[data]')")
    command = [sys.executable, "-m", "benchmarks.room", "--images", "300", "--only", "kills"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=PATIENCE)
    assert done.returncode == 0 and "0 lost, 0 twice, 0 not as alone" in done.stdout, done.stdout
    assert "actor killed" in done.stdout and "driver killed" in done.stdout, done.stdout
