"""Several engine processes answer as one would, whatever becomes of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection
from pathlib import Path

import pytest
from PIL import Image

from jaxphoton.batch.retries import retrying
from jaxphoton.batch.workers import supervisor
from jaxphoton.batch.workers.pool import Replicas
from jaxphoton.batch.workers.protocol import ReplicaError
from jaxphoton.image.errors import ImageError
from jaxphoton.requests.ask import Ask, Job
from jaxphoton.requests.settings import Settings
from tests.batch.workers import fake_child
from tests.image.pools import S, needs_proc, running, traces, until

ROOT = Path(__file__).parents[3]
ASKS = (Ask("caption", {"length": "short"}, {"temperature": 0}),)
COMMAND = ("-m", "tests.batch.workers.fake_child")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(supervisor, "PAUSE_S", 0.01)


@pytest.fixture
def start():
    """Starts replicas, closed at the end; `lines` is what they say."""
    opened = []

    def start(count: int = 2, how: str = "well") -> Replicas:
        replicas = Replicas((None,) * count, {"path_or_id": how}, log=start.lines.append, command=COMMAND)
        opened.append(replicas)
        return replicas

    start.lines = []
    yield start
    for replicas in opened:
        replicas.close()


def jobs(images):
    return (Job(key, image, ASKS, name=f"image {key}") for key, image in enumerate(images))


def numbered(count: int) -> list[bytes]:
    return [f"number {number}".encode() for number in range(count)]


def check(answers, images, failing: Collection[int] = ()) -> None:
    """Every key once, with its own answer; those of `failing` with the fault of a process that died twice."""
    assert sorted(answer.key for answer in answers) == list(range(len(images)))
    for answer in answers:
        if answer.key in failing:
            assert isinstance(answer.error, ImageError) and answer.error.reason == "process-died"
            assert str(answer.error).startswith(f"image {answer.key}: the engine process died twice")
        else:
            assert answer.error is None and answer.results[0]["caption"] == images[answer.key].decode()


def test_a_program_that_no_system_starts_is_no_hang():
    with pytest.raises(ReplicaError, match="no engine process is left: embedded null byte"):
        Replicas((None,), {"path_or_id": "well"}, log=lambda line: None, command=("a\0b",))


def test_what_repeats_itself_is_asked_again(start):
    images = [b"la la la la", b"fine", b"broken", *[b"so it goes, " * 4] * 9]
    found = {answer.key: answer for answer in retrying(start(), 2, Settings()).answer(jobs(images))}
    assert len(found) == len(images) and isinstance(found.pop(2).error, ImageError)
    for key, image in enumerate(images):
        if key in found:
            (result,) = found[key].results
            assert result["caption"] == image.decode() and result.retries == (0 if image == b"fine" else 2)


def test_answers_are_whole(start, tmp_path):
    images = [b"", b"bytes", str(tmp_path / "ünï"), tmp_path / os.fsdecode(b"p")]
    found = {answer.key: answer for answer in start().answer(jobs(images))}
    for key, image in enumerate(images):
        answer, (result,) = found[key], found[key].results
        assert result["caption"] == (image.decode() if isinstance(image, bytes) else str(image))
        assert result["asked"] == [{"length": "short"}]
        assert (answer.error, answer.size, answer.notes) == (None, (3, 4), ("rotated",))
        assert (result.finish_reason, result.seed, result.tokens, result.logprob) == ("stop", 5, (3, 4), -0.1)
        assert result.logprobs == ({"token": "a", "logprob": -0.1, "bytes": [97]},)
        assert result.metrics == fake_child.METRICS


def test_errors_of_images_are_theirs_alone(start):
    images = [b"fine", b"broken", b"value", b"other", Image.new("RGB", (2, 2))]
    fine, *others = sorted(start().answer(jobs(images)), key=lambda answer: answer.key)
    assert fine.error is None
    errors = [answer.error for answer in others]
    assert [type(error) for error in errors] == [ImageError, ValueError, RuntimeError, TypeError]
    assert errors[0].args == fake_child.ERRORS[b"broken"].args
    assert [str(error) for error in errors[1:3]] == ["no such setting", "ZeroDivisionError: by zero"]


def test_all_processes_answer_and_jobs_are_read_a_bounded_way_ahead(start):
    replicas, read, done, pids = start(), [0], [], set()
    deadline = time.monotonic() + S

    def unending():
        while len(pids) < 2 and time.monotonic() < deadline:
            yield Job(read[0], b"number %d" % read[0], ASKS)
            read[0] += 1

    for answer in replicas.answer(unending()):
        done.append(answer)
        pids.add(answer.results[0]["pid"])
        assert read[0] <= len(done) + 3 * 6 + 1
    check(done, numbered(read[0]))
    assert pids == set(replicas.pids) and len(pids) == 2
    assert replicas.stages == {"decode": float(read[0])} and replicas.compiling == 12.5


def test_a_killed_process_loses_nothing(start):
    replicas, images, done = start(), numbered(400), []
    for answer in replicas.answer(jobs(images)):
        done.append(answer)
        if len(done) in (50, 150, 250):
            until(lambda: len(replicas.pids) == 2, "two processes")
            os.kill(replicas.pids[len(done) % 2], signal.SIGKILL)
    check(done, images)
    assert sum("has died" in line for line in start.lines) == 3


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_image_that_kills_its_process_twice_fails_alone(start, count):
    images = numbered(100)
    images[20] = images[60] = b"poison"
    check(list(start(count).answer(jobs(images))), images, {20, 60})


def test_when_no_process_is_left_what_is_open_has_not_failed(start):
    images = [*numbered(40), *[b"poison"] * 100]
    done = []
    with pytest.raises(ReplicaError, match="no engine process is left: killed by SIGKILL"):
        for answer in start().answer(jobs(images)):
            done.append(answer)
    failed = [answer.key for answer in done if answer.error]
    assert len(done) < len(images) and all(key >= 40 for key in failed)
    assert len({answer.key for answer in done}) == len(done)


def test_the_others_start_when_the_first_has_compiled(start, tmp_path):
    gate = tmp_path / "gate"
    starting = threading.Thread(target=start, args=(3, str(gate)))
    starting.start()
    until(lambda: start.lines, "the first loads")
    time.sleep(0.5)  # time for others to do so, wrongly
    assert start.lines == ["replica 0: loading"]
    gate.touch()
    starting.join(S)
    until(lambda: len(start.lines) == 3, "the others load")


def test_a_log_that_raises_stops_nothing():
    def log(line: str) -> None:
        raise BrokenPipeError

    images = numbered(3)
    with Replicas((None,), {"path_or_id": "talks"}, log=log, command=COMMAND) as replicas:
        check(list(replicas.answer(jobs(images))), images)


def test_processes_that_cannot_start(start):
    with pytest.raises(ReplicaError, match="^no such model$"):
        start(2, "refused")
    with pytest.raises(ReplicaError, match="no engine process is left: killed by SIGKILL"):
        start(2, "dies")


def test_what_processes_print_is_shown_and_harms_nothing(start):
    images = numbered(3)
    check(list(start(1, "talks").answer(jobs(images))), images)
    assert "replica 0: said on the way" in start.lines


def test_a_fault_of_the_reader_is_raised_after_the_answers(start):
    def broken():
        yield from jobs(numbered(5))
        raise OSError("the disk is gone")

    done = []
    with pytest.raises(OSError, match="the disk is gone"):
        for answer in start().answer(broken()):
            done.append(answer.key)
    assert sorted(done) == list(range(5))


@needs_proc
def test_closing_early_leaves_nothing(start):
    before = traces()
    replicas = start()
    until(lambda: len(replicas.pids) == 2, "two processes")
    pids = replicas.pids
    answers = replicas.answer(jobs([*numbered(10), *[b"stuck"] * 50]))
    next(answers)
    replicas.close()
    with pytest.raises(ReplicaError, match="closed"):
        list(answers)
    assert not any(map(running, pids)) and not replicas.pids
    start(2).close()  # while the second starts
    until(lambda: traces() == before, "nothing is left")


def test_leaving_early_and_asking_again(start):
    replicas = start()
    for answer in replicas.answer(jobs(numbered(50))):
        assert answer.error is None
        break
    check(list(replicas.answer(jobs(numbered(30)))), numbered(30))


@needs_proc
def test_signals_of_a_terminal_and_of_batch_systems_reach_this_process_alone(start):
    replicas = start()
    until(lambda: len(replicas.pids) == 2, "two processes")
    list(replicas.answer(jobs(numbered(20))))
    pids = replicas.pids
    for pid in pids:
        assert os.getpgid(pid) != os.getpgid(0) and os.getsid(pid) != os.getsid(0)
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    check(list(replicas.answer(jobs(numbered(30)))), numbered(30))
    assert replicas.pids == pids


@needs_proc
def test_processes_do_not_outlive_a_killed_parent():
    text = f"""
import time
from jaxphoton.batch.workers.pool import Replicas
from jaxphoton.requests.ask import Ask, Job
from jaxphoton.requests.settings import Settings
replicas = Replicas((None, None), {{"path_or_id": "well"}}, command={COMMAND!r})
while len(replicas.pids) < 2: time.sleep(0.01)
print(*replicas.pids, flush=True)
list(replicas.answer(Job(key, b"stuck", (Ask("caption"),)) for key in range(50)))
"""
    with subprocess.Popen([sys.executable, "-c", text], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        try:
            pids = [int(pid) for pid in parent.stdout.readline().split()]
            assert len(pids) == 2 and all(map(running, pids))
        finally:
            parent.kill()
    until(lambda: not any(map(running, pids)), "the processes are gone")


def test_this_process_opens_no_device():
    text = "import sys, jaxphoton.batch.workers.pool, jaxphoton.batch.workers.gpus; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", text], cwd=ROOT, check=True)
