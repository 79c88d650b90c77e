"""Image workers and pools come and go, one way or the other, and leave nothing behind."""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jaxphoton.image.decode import ImageError
from jaxphoton.image.pool import ImagePool
from jaxphoton.image.prepare import prepare
from tests.image.files import saved
from tests.image.pools import PICTURE, PICTURES, PNG, S, exists, needs_proc, running, same, traces, until

ROOT = Path(__file__).parents[2]


def test_a_killed_worker_is_replaced_and_the_picture_tried_again(gate):
    with ImagePool(PICTURES, 1) as pool:
        stuck, behind = pool.submit(gate.path), pool.submit(PNG)
        gate.entered()
        gate.kill_inside(pool)
        gate.open(PNG)
        same(stuck.result(S), prepare(PNG, PICTURES))
        same(behind.result(S), prepare(PNG, PICTURES))


def test_a_second_death_fails_that_picture_alone(gate):
    with ImagePool(PICTURES, 1) as pool:
        stuck, behind = pool.submit(gate.path), pool.submit(PNG)
        gate.entered()
        gate.kill_inside(pool)
        [pid] = pool.worker_pids
        os.kill(pid, signal.SIGKILL)
        error = stuck.exception(S)
        assert isinstance(error, ImageError) and error.source == str(gate.path)
        assert str(error) == f"{gate.path}: the process that decodes it died twice (killed by SIGKILL)"
        same(behind.result(S), prepare(PNG, PICTURES))


def test_idle_workers_may_die_as_often_as_they_like():
    with ImagePool(PICTURES, 1) as pool:
        for _ in range(3):
            same(pool.submit(PNG).result(S), prepare(PNG, PICTURES))
            (pid,) = pool.worker_pids
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: not running(pid), "the worker is dead")


@needs_proc
def test_control_c_does_not_reach_workers():
    with ImagePool(PICTURES, 1) as pool:
        # The first one while it starts.
        (pid,) = until(lambda: pool.worker_pids, "a worker")
        os.kill(pid, signal.SIGINT)
        pool.submit(PNG).result(S)
        os.kill(pid, signal.SIGINT)
        pool.submit(PNG).result(S)
        assert pool.worker_pids == [pid]


@pytest.mark.parametrize("program", ["/bin/false", "/nowhere/python"])
def test_workers_that_do_not_start(program, monkeypatch):
    monkeypatch.setattr(sys, "executable", program)
    with ImagePool(PICTURES, 1) as pool:
        for _ in range(2):
            error = pool.submit(PNG, name="mine").exception(S)
            assert isinstance(error, RuntimeError)
            assert re.match(r"mine: the image worker does not start \((exit status 1|.*No such file.*)\)", str(error))


def test_closing_a_busy_pool(gate):
    pool = ImagePool(PICTURES, 1, slots=1, bound=2)
    stuck, waiting, refused = pool.submit(gate.path), pool.submit(PNG), []

    def submit():
        try:
            pool.submit(PNG)
        except RuntimeError as error:
            refused.append(str(error))

    thread = threading.Thread(target=submit)
    thread.start()
    gate.entered()
    pids = pool.worker_pids
    pool.close()
    pool.close()
    thread.join(S)
    assert refused == ["the image pool is closed"]
    for future in (stuck, waiting):
        error = future.exception(S)
        assert isinstance(error, RuntimeError) and str(error) == "the image pool is closed"
    for source in (PNG, PICTURE):
        with pytest.raises(RuntimeError, match="closed"):
            pool.submit(source)
    assert pids and not pool.worker_pids
    assert not any(exists(pid) for pid in pids)


def test_a_callback_may_close_the_pool():
    pool = ImagePool(PICTURES, 1)
    closed = threading.Event()
    future = pool.submit(saved(PICTURE.resize((700, 700)), "PNG"))
    future.add_done_callback(lambda _: (pool.close(), closed.set()))
    assert closed.wait(S)
    pool.close()
    assert not pool.worker_pids


@needs_proc
def test_nothing_is_left_behind(gate):
    gc.collect()
    before = traces()
    with ImagePool(PICTURES, 2) as pool:
        futures = [pool.submit(PNG) for _ in range(4)]
        for future in futures:
            future.result(S)
        assert traces() != before
    assert traces() == before
    with ImagePool(PICTURES, 1) as pool:
        pool.submit(gate.path)
        gate.entered()
        gate.kill_inside(pool)
    gate.open()
    assert traces() == before
    ImagePool(PICTURES, 2).close()  # while they start
    assert traces() == before
    dropped = ImagePool(PICTURES, 1).submit(PNG)
    gc.collect()
    assert isinstance(dropped.exception(S), RuntimeError)
    until(lambda: traces() == before, "a dropped pool is gone")


def script(tmp_path: Path, text: str) -> list[str]:
    """A program of a user: no `if __name__ == "__main__"`."""
    path = tmp_path / "script.py"
    head = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    imports = (
        "from jaxphoton.models.moondream.config import VisionConfig\n"
        "from jaxphoton.models.moondream.pictures import MoondreamPictures\n"
        "from jaxphoton.image.pool import ImagePool\n"
    )
    path.write_text(f"{head}{imports}print('started', flush=True)\n{text}")
    return [sys.executable, str(path)]


@pytest.mark.parametrize("closed", ["<&-", "<&- 2>&-", ""])
def test_an_unguarded_script_that_forgets_to_close(tmp_path, closed):
    (tmp_path / "a.png").write_bytes(PNG)
    # A module of this name in the folder of work must not become the worker's.
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    command = script(
        tmp_path,
        "import pathlib\n"
        "pool = ImagePool(MoondreamPictures(VisionConfig()), 2)\n"
        "futures = [pool.submit('work/../a.png'), pool.submit(pathlib.Path('a.png').read_bytes())]\n"
        f"print([future.result({S}).size for future in futures])\n",
    )
    (tmp_path / "work").mkdir()
    (tmp_path / "script.py").rename(tmp_path / "work" / "script.py")
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -W error work/script.py {closed}', command[0]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=S,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("started\n[(120, 90), (120, 90)]\n", "", 0)


@needs_proc
def test_workers_do_not_outlive_a_killed_parent(tmp_path, gate):
    text = f"pool = ImagePool(MoondreamPictures(VisionConfig()), 1)\nf = pool.submit({str(gate.path)!r})\n"
    text += (
        "import time\nwhile not pool.worker_pids: time.sleep(0.01)\nprint(*pool.worker_pids, flush=True)\nf.result()"
    )
    with subprocess.Popen(script(tmp_path, text), stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout.readline() == "started\n"
            pid = int(parent.stdout.readline())
            gate.entered()  # it is stuck in a picture, and does not look at its stdin
            assert running(pid)
        finally:
            parent.kill()
    until(lambda: not running(pid), "the worker is gone")


def test_a_fork_leaves_the_workers_alone(tmp_path):
    text = f"""
import os, sys
pool = ImagePool(MoondreamPictures(VisionConfig()), 1)
pool.submit({PNG!r}).result({S})
pids = pool.worker_pids
if child := os.fork():
    assert os.waitpid(child, 0)[1] == 0
    print(pool.submit({PNG!r}).result({S}).size, pool.worker_pids == pids)
else:
    sys.exit(0)
"""
    done = subprocess.run(script(tmp_path, text), capture_output=True, text=True, timeout=S)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "started\n(120, 90) True\n"
