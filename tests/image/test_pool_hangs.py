"""Workers that are stopped or hang hold nobody up for ever, and only the picture they were at is blamed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxphoton.image import pool as image_pool
from jaxphoton.image.errors import REASONS, ImageError
from jaxphoton.image.pool import ImagePool
from jaxphoton.image.prepare import prepare
from jaxphoton.image.supervisor import ImageSupervisor, PictureTask
from jaxphoton.processes import child, supervisor
from jaxphoton.processes.assignments import Assignments
from jaxphoton.processes.pipe import TookTooLong
from jaxphoton.processes.supervisor import ProcessPool
from tests.image.pools import PICTURES, PNG, S, exists, failure, needs_proc, running, same, until
from tests.image.test_pool_lifetime import script

LIMIT = 2.0  # long for these pictures on a busy machine, short to wait for
LATE = f"took longer than {LIMIT:g} s"


def idle(pool: ImagePool) -> int:
    """The pool's only worker, once it has started and has nothing to do."""
    pool.submit(PNG).result(S)
    (pid,) = pool.worker_pids
    return pid


def test_what_a_stopped_worker_has_is_done_by_another():
    with ImagePool(PICTURES, 1, timeout=LIMIT) as pool:
        pid = idle(pool)
        os.kill(pid, signal.SIGSTOP)
        for future in [pool.submit(PNG), pool.submit(PNG)]:
            same(future.result(S), prepare(PNG, PICTURES))
        assert pool.worker_pids != [pid] and not exists(pid)


def test_a_picture_that_takes_too_long_twice_fails_alone(gate):
    with ImagePool(PICTURES, 1, timeout=LIMIT) as pool:
        stuck, behind, more = pool.submit(gate.path), pool.submit(PNG), pool.submit(PNG)
        error = stuck.exception(S)
        assert isinstance(error, ImageError)
        assert (error.reason, error.fault) == ("timeout", LATE)
        assert error.reason in REASONS
        for future in (behind, more):
            same(future.result(S), prepare(PNG, PICTURES))


def test_the_time_in_which_everything_is_stopped_does_not_count(tmp_path, gate):
    """Ctrl-Z, or the lid of a laptop, in the middle of a picture."""
    text = (
        f"pool = ImagePool(MoondreamPictures(VisionConfig()), 1, timeout={LIMIT})\n"
        f"pool.submit({PNG!r}).result()\n"
        "pids = pool.worker_pids\n"
        f"future = pool.submit({str(gate.path)!r})\n"
        "print(future.result().size, pool.worker_pids == pids, flush=True)\n"
    )
    command = script(tmp_path, text)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        try:
            gate.entered()
            os.killpg(parent.pid, signal.SIGSTOP)
            time.sleep(1.5 * LIMIT)  # what is tested: that this time passes
            gate.open(PNG)
            os.killpg(parent.pid, signal.SIGCONT)
            assert parent.stdout.read() == "started\n(120, 90) True\n"
        finally:
            os.killpg(parent.pid, signal.SIGKILL)


@needs_proc
def test_closing_with_a_stopped_worker():
    pool = ImagePool(PICTURES, 1)
    pid = idle(pool)
    os.kill(pid, signal.SIGSTOP)
    stuck = pool.submit(PNG)
    pool.close()
    assert isinstance(stuck.exception(S), RuntimeError) and not exists(pid)


def stopping(tmp_path: Path, monkeypatch) -> None:
    """Workers stop as soon as they have started."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nkill -STOP $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def test_workers_that_stop_while_they_start(tmp_path, monkeypatch):
    stopping(tmp_path, monkeypatch)
    monkeypatch.setattr(child, "START_S", 0.25)
    with ImagePool(PICTURES, 1, timeout=LIMIT) as pool:
        error = pool.submit(PNG, name="mine").exception(S)
        assert str(error) == "mine: the image worker does not start (took longer than 0.25 s)"


def test_closing_while_workers_are_stopped_at_their_start(tmp_path, monkeypatch):
    stopping(tmp_path, monkeypatch)
    pool = ImagePool(PICTURES, 2)
    pids = until(lambda: len(pool.worker_pids) == 2 and pool.worker_pids, "two workers")
    pool.close()
    assert not any(map(exists, pids)) and not pool.worker_pids


def test_a_process_that_a_disk_holds_is_left_to_its_fate(monkeypatch):
    monkeypatch.setattr(image_pool, "END_S", 0.05)
    with ImagePool(PICTURES, 1, timeout=LIMIT) as pool:
        pid = idle(pool)
        os.kill(pid, signal.SIGSTOP)
        with monkeypatch.context() as disk:
            disk.setattr(subprocess.Popen, "kill", lambda self: None)
            same(pool.submit(PNG).result(S), prepare(PNG, PICTURES))
        assert running(pid) and pid not in pool.worker_pids
        os.kill(pid, signal.SIGKILL)
        until(lambda: not exists(pid), "it is reaped when the disk lets it go")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a stopped process with its parent")
def test_a_stopped_worker_does_not_outlive_a_killed_parent(tmp_path):
    text = f"pool = ImagePool(MoondreamPictures(VisionConfig()), 1)\npool.submit({PNG!r}).result()\n"
    text += "print(*pool.worker_pids, flush=True)\nsys.stdin.read()"
    with subprocess.Popen(script(tmp_path, text), stdin=-1, stdout=-1, text=True, start_new_session=True) as parent:
        try:
            assert parent.stdout.readline() == "started\n"
            pid = int(parent.stdout.readline())
            os.kill(pid, signal.SIGSTOP)
        finally:
            parent.kill()
    until(lambda: not running(pid), "the worker is gone")


class FakeWorker:
    """Answers at once; of pictures named slow it takes too long, of those named deadly it dies."""

    begun: Counter[str]
    lock = threading.Lock()

    def __init__(self, program):
        self.pid, self._sent, self._room = 1, SimpleQueue(), program.settings["room"]

    def greet(self):
        return {"room": self._room}

    def alive(self):
        return True

    def send(self, message, data):
        self._sent.put(message)

    def receive(self):
        if (message := self._sent.get()) is None:
            raise EOFError
        name = message["name"]
        with FakeWorker.lock:
            FakeWorker.begun[name] += 1
        if name.startswith("slow"):
            raise TookTooLong("took longer than 9 s")
        if name.startswith("deadly"):
            raise EOFError
        return {"number": message["number"], "image_error": (name, "empty", "as it should be")}

    def kill(self):
        self._sent.put(None)

    def stop(self):
        return "killed by SIGKILL"


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["fine", "slow", "deadly"]), max_size=25),
    workers=st.integers(1, 3),
    slots=st.integers(1, 3),
)
def test_only_those_at_which_a_worker_was_are_blamed(kinds, workers, slots):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor, "Child", FakeWorker)
        FakeWorker.begun = Counter()

        def program(settings, blocks):
            return child.Program((), {}, b"", settings, 9)

        work = Assignments(workers, in_order=True, bound=len(kinds) + 1)
        settings = {"vision": {"crop_size": 56}, "room": slots}
        supervisors = [
            ImageSupervisor(number, work, program, settings, lambda *_: cast(Any, None)) for number in range(workers)
        ]
        tasks = [PictureTask(name=f"{kind} {number}", path="") for number, kind in enumerate(kinds)]
        processes = ProcessPool(work, supervisors)
        for task in tasks:
            work.put(task)
        reasons = {"fine": "empty", "slow": "timeout", "deadly": "process-died"}
        faults = {
            "fine": "as it should be",
            "slow": "took longer than 9 s",
            "deadly": "the process that decodes it died twice (killed by SIGKILL)",
        }
        for kind, task in zip(kinds, tasks, strict=True):
            error = failure(task.future)
            assert (error.reason, error.fault) == (reasons[kind], faults[kind])
            assert FakeWorker.begun[task.name] == (1 if kind == "fine" else 2)
        processes.end(RuntimeError("the end"), S)


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_limit_must_be_above_0(timeout):
    with pytest.raises(ValueError, match="timeout must be above 0"):
        ImagePool(PICTURES, 1, timeout=timeout)
