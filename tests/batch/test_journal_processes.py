"""The journal between processes: the lock, and writers killed at any moment."""

from __future__ import annotations

import random
import signal
import subprocess
import sys

import pytest

from jaxphoton.batch.errors import JournalError
from jaxphoton.batch.journal import Journal
from jaxphoton.batch.journal.reading import JournalReader
from jaxphoton.batch.journal.record import Record
from tests.batch.helpers import HEADER, make_journal

WRITER = """
import sys
from jaxphoton.batch.journal import Journal
from jaxphoton.batch.journal.record import Header, Record
header = Header({"task": "caption", "length": "normal"}, model="m1")
journal = Journal(sys.argv[1], header, sync_s=0.001, sync_lines=7)
start = journal.counts["ok"]
for number in range(start, start + 100_000):
    journal.write(Record(str(number), "ok", results=({"task": "caption", "caption": "x" * (number % 300)},)))
    print(number, flush=True)
"""


def writer(path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process


def test_two_processes_on_one_journal_are_refused(tmp_path):
    path = tmp_path / "j"
    with writer(path) as process:
        assert process.stdout and process.stdout.readline()
        with pytest.raises(JournalError, match="another process"):
            Journal(path, HEADER)
        with JournalReader(path) as reader:  # reading is free
            assert next(reader.records()).key == "0"
        process.send_signal(signal.SIGKILL)
    with Journal(path, HEADER) as journal:
        assert "0" in journal
        with pytest.raises(JournalError, match="another process"):
            Journal(path, HEADER)


def test_a_lock_is_given_back_when_opening_fails(tmp_path):
    path = make_journal(tmp_path / "j", [Record("a.png", "ok")])
    with pytest.raises(JournalError):
        Journal(path, type(HEADER)({}, "m1"))
    Journal(path, HEADER).close()


def test_killing_the_writer_loses_nothing_that_was_acknowledged(tmp_path):
    path, chance = tmp_path / "j", random.Random(0)
    for _ in range(6):
        with writer(path) as process:
            assert process.stdout
            for _ in range(chance.randrange(1, 400)):
                last = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            # A number may be cut short by the death; the one before it is whole.
            last = max([last, *map(int, process.stdout.read().split("\n")[:-1])])
        with Journal(path, HEADER) as journal:
            assert not journal.damage
            done = journal.counts["ok"]
            assert done >= last + 1
            assert all(str(number) in journal for number in range(done))
    with JournalReader(path) as reader:
        assert [record.key for record in reader.records()] == [str(number) for number in range(done)]
        assert not reader.damage
