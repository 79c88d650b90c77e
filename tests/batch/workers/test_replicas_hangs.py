"""Engine processes that are stopped or hang are noticed, and healthy ones are left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from contextlib import contextmanager

import pytest

from jaxphoton.batch.workers import pool, supervisor
from jaxphoton.batch.workers.child import GREETING
from jaxphoton.batch.workers.pool import Replicas
from jaxphoton.batch.workers.protocol import ReplicaError
from jaxphoton.image.errors import ImageError
from jaxphoton.processes import child
from jaxphoton.processes.pipe import read_frame, write_frame
from tests.batch.workers.test_replicas import COMMAND, ROOT, jobs, no_pauses, numbered  # noqa: F401
from tests.image.pools import exists, needs_proc, running, until

SILENCE = 2.0  # forty signs of life


@contextmanager
def started(count: int, how: str = "well", silence: float = SILENCE, command=COMMAND):
    lines: list[str] = []
    options = {"path_or_id": how}
    with Replicas((None,) * count, options, log=lines.append, silence=silence, command=command) as replicas:
        yield replicas, lines


def check(answers, images, fault: str, failing: Collection[int] = ()) -> None:
    assert sorted(answer.key for answer in answers) == list(range(len(images)))
    for answer in answers:
        if answer.key in failing:
            assert isinstance(answer.error, ImageError) and answer.error.reason == "timeout"
            assert f"hung while it had this image ({fault})" in answer.error.fault
        else:
            assert answer.error is None and answer.results[0]["caption"] == images[answer.key].decode()


def test_what_a_stopped_process_has_is_done_by_others():
    images, done = numbered(200), []
    with started(2) as (replicas, lines):
        until(lambda: len(replicas.pids) == 2, "two processes")
        for answer in replicas.answer(jobs(images)):
            done.append(answer)
            if len(done) == 50:
                stopped = replicas.pids[0]
                os.kill(stopped, signal.SIGSTOP)
        check(done, images, "")
        assert not exists(stopped)
    assert any("hung (no sign of life for 2 s); started again" in line for line in lines)


@pytest.mark.parametrize("count", [1, 2])
def test_an_image_that_stops_its_process_twice_fails_alone(count):
    images = numbered(40)
    images[20] = b"stops"
    with started(count) as (replicas, _):
        check(list(replicas.answer(jobs(images))), images, "no sign of life for 2 s", {20})


def test_a_process_that_lives_and_does_nothing_hangs_too(monkeypatch):
    monkeypatch.setattr(supervisor, "STALL_S", 2.0)
    images = numbered(20)
    images[7] = b"stuck"
    with started(1, silence=60) as (replicas, _):
        check(list(replicas.answer(jobs(images))), images, "no work done for 2 s", {7})


def test_processes_that_stop_while_they_load():
    with pytest.raises(ReplicaError, match=r"no engine process is left: no sign of life for 0\.5 s"):
        with started(1, "stops", silence=0.5):
            pass


def test_processes_that_stop_before_they_greet(monkeypatch):
    monkeypatch.setattr(child, "START_S", 0.25)
    command = ("-c", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)")
    with pytest.raises(ReplicaError, match=r"no engine process is left: no sign of life for 0\.25 s"):
        with started(2, command=command):
            pass


def test_a_process_that_a_driver_holds_is_left_to_its_fate(monkeypatch):
    monkeypatch.setattr(pool, "END_S", 0.05)
    monkeypatch.setattr(child, "LAST_WORDS_S", 0.05)
    images, kill = numbered(10), os.killpg
    with started(1) as (replicas, lines):
        (stopped,) = replicas.pids
        os.kill(stopped, signal.SIGSTOP)
        monkeypatch.setattr(os, "killpg", lambda pid, number: None if pid == stopped else kill(pid, number))
        check(list(replicas.answer(jobs(images))), images, "")
        assert exists(stopped) and stopped not in replicas.pids
        os.kill(stopped, signal.SIGKILL)
        until(lambda: not exists(stopped), "it is reaped when the driver lets it go")


@pytest.fixture
def fake(tmp_path):
    """A fake process with a closed stderr, spoken to by hand; it loads until tmp_path / "gate" is there."""
    command = ["sh", "-c", f'exec "$0" {" ".join(COMMAND)} 2>&-', sys.executable]
    with subprocess.Popen(command, cwd=ROOT, stdin=-1, stdout=-1) as process:
        assert process.stdin is not None
        write_frame(process.stdin, {"options": {"path_or_id": str(tmp_path / "gate")}})
        process.stdin.flush()
        yield process
        process.kill()


def test_signs_of_life_come_while_it_loads_and_no_stderr_is_needed(fake, tmp_path):
    while (line := fake.stdout.readline()) != GREETING:
        assert line
    for _ in range(3):
        assert read_frame(fake.stdout) == {"stages": {}}
    (tmp_path / "gate").touch()
    while "room" not in (message := read_frame(fake.stdout)):
        assert message == {"stages": {}}
    assert read_frame(fake.stdout) == {"stages": {"decode": 0.0}, "held": {"rows": 3, "running": 2}}


@needs_proc
def test_closing_with_a_stopped_process():
    with started(2) as (replicas, _):
        until(lambda: len(replicas.pids) == 2, "two processes")
        pids = replicas.pids
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
    assert not any(map(exists, pids)) and not replicas.pids


def parent(count: int) -> list[str]:
    """A program with engine processes: prints their ids; at each line it gets, answers and tells if they are those."""
    text = f"""
import sys, time
from jaxphoton.batch.workers.pool import Replicas
from jaxphoton.requests.ask import Ask, Job
replicas = Replicas((None,) * {count}, {{"path_or_id": "well"}}, silence={SILENCE}, command={COMMAND!r})
while len(replicas.pids) < {count}: time.sleep(0.01)
print(*replicas.pids, flush=True)
pids = replicas.pids
for line in sys.stdin:
    answers = list(replicas.answer(Job(key, b"fine", (Ask("caption"),)) for key in range(50)))
    print(len(answers), replicas.pids == pids, flush=True)
"""
    return [sys.executable, "-c", text]


@pytest.mark.parametrize("all_of_them", [False, True], ids=["Ctrl-Z", "sleep"])
def test_the_time_in_which_the_run_is_stopped_does_not_count(all_of_them):
    with subprocess.Popen(parent(2), cwd=ROOT, stdin=-1, stdout=-1, text=True, bufsize=1) as run:
        try:
            pids = [int(pid) for pid in run.stdout.readline().split()]
            everybody = [run.pid, *pids] if all_of_them else [run.pid]
            for pid in everybody:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(1.5 * SILENCE)  # what is tested: that this time passes
            for pid in everybody:
                os.kill(pid, signal.SIGCONT)
            print("go", file=run.stdin)
            assert run.stdout.readline() == "50 True\n"
        finally:
            run.kill()
    until(lambda: not any(map(running, pids)), "the processes are gone")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a stopped process with its parent")
def test_a_stopped_process_does_not_outlive_a_killed_parent():
    with subprocess.Popen(parent(1), cwd=ROOT, stdin=-1, stdout=-1, text=True) as run:
        try:
            pid = int(run.stdout.readline())  # it has started
            os.kill(pid, signal.SIGSTOP)
        finally:
            run.kill()
    until(lambda: not running(pid), "the process is gone")
