"""How many programs are compiled at once, where their memory figures come from, and what is said."""

from __future__ import annotations

import logging
import threading

import pytest

from jaxphoton.engine import compiling
from jaxphoton.engine.compiling import at_once, compile_all, free_memory, load_all

GIB = 1 << 30


@pytest.mark.parametrize(
    ("cost", "free", "cores", "threads"),
    [
        (GIB, 100 * GIB, 4, 4),  # more memory than cores
        (GIB, 4 * GIB, 8, 3),  # a quarter is left alone
        (GIB, GIB, 8, 1),  # too little for one: one all the same
        (GIB, 0, 8, 1),
        (GIB, None, 8, 8),  # not known
    ],
)
def test_programs_at_once_are_bounded_by_cores_and_free_memory(cost, free, cores, threads):
    assert at_once(cost, free, cores) == threads


def test_free_memory_is_what_the_host_or_the_container_says_whichever_is_less(tmp_path):
    assert free_memory(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 4096 kB\nMemFree: 1 kB\nMemAvailable: 2048 kB\n")
    assert free_memory(tmp_path) == 2 << 20
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    (group / "memory.current").write_text("1000\n")
    (group / "memory.max").write_text("max\n")
    assert free_memory(tmp_path) == 2 << 20
    (group / "memory.max").write_text("5000\n")
    assert free_memory(tmp_path) == 4000


def test_no_more_are_under_way_than_memory_allows_and_that_is_said(monkeypatch, caplog):
    monkeypatch.setattr(compiling, "free_memory", lambda: compiling.PROGRAM_BYTES)
    monkeypatch.setattr(compiling, "_cores", lambda: 8)
    lock, under_way, most = threading.Lock(), [], []

    def one(key, job):
        with lock:
            under_way.append(key)
            most.append(len(under_way))
        with lock:
            under_way.remove(key)
        return lambda: key

    with caplog.at_level(logging.INFO, "jaxphoton.compiling"):
        done = compile_all({("step", n): None for n in range(6)}, one, layers=24)
    assert max(most) == 1 and list(done) == [("step", n) for n in range(6)]
    first, last = caplog.messages[0], caplog.messages[-1]
    assert "compiling 6 programs: step 0, step 1" in first and "1 at once" in first and "are free" in first
    assert last.startswith("compiled 6 programs in ")


def test_loading_is_told_too(caplog):
    with caplog.at_level(logging.INFO, "jaxphoton.compiling"):
        load_all({("step", 8): None}, lambda key, job: lambda: key, "somewhere")
    assert caplog.messages[0] == "loading 1 programs from somewhere"
    assert caplog.messages[-1].startswith("loaded 1 programs in ")
