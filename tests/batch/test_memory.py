"""50,000 entries: what is held does not grow with them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile

import pytest

from jaxphoton.batch.journal import Journal
from jaxphoton.batch.journal.record import Record
from jaxphoton.batch.sources import open_source
from tests.batch.helpers import HEADER

MANY = 50_000

# Growth of the process from the 1,000th entry on, in bytes. Python's own tracer would slow this down tenfold.
PROBE = """
import resource, sys
from pathlib import Path
from jaxphoton.batch.exports import export
from jaxphoton.batch.journal import Journal
from jaxphoton.batch.journal.reading import JournalReader
from jaxphoton.batch.journal.record import Header
from jaxphoton.batch.sources import Selection, open_source

def held():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def growth(entries):
    for number, _ in enumerate(entries, 1):
        if number == 1000:
            before = held()
    return number, held() - before

what, path = sys.argv[1:]
if what == "source":
    print(*growth(Selection().items(open_source(path))))
elif what == "resume":
    before = held()
    with Journal(path, Header({"task": "caption", "length": "normal"}, model="m1")) as journal:
        print(journal.counts["ok"], held() - before)
else:
    before = held()
    print(export(path, path + ".jsonl").written, held() - before)
"""


def probe(what, path) -> tuple[int, int]:
    done = subprocess.run([sys.executable, "-c", PROBE, what, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    entries, grown = map(int, done.stdout.split())
    return entries, grown


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("many")
    with tarfile.open(root / "s.tar", "w") as tar:
        for number in range(MANY // 2):
            info = tarfile.TarInfo(f"{number}.png")
            info.size = 10
            tar.addfile(info, io.BytesIO(b"x" * 10))
    with tarfile.open(root / "apart.tar", "w") as tar:
        for name in [f"{number}.{end}" for end in ("png", "txt") for number in range(MANY // 2)]:
            info = tarfile.TarInfo(name)
            info.size = 10
            tar.addfile(info, io.BytesIO(b"x" * 10))
    with open(root / "x.jsonl", "w") as rows, open(root / "x.txt", "w") as names:
        for number in range(MANY):
            rows.write(json.dumps({"path": f"{number}.png", "question": "What is it?" * 10}) + "\n")
            names.write(f"{number}.png\n")
    for folder in range(50):
        (root / "images" / str(folder)).mkdir(parents=True)
        for number in range(MANY // 50):
            (root / "images" / str(folder) / f"{number}.png").touch()
    return root


@pytest.mark.parametrize("name", ["s.tar", "apart.tar", "x.jsonl", "x.txt", "images"])
def test_sources_are_lazy(inputs, name):
    # The index of keys that tells repeats takes 2.1 MB; the entries as objects would take 20 MB and more.
    entries, grown = probe("source", inputs / name)
    assert entries == (MANY // 2 if name.endswith(".tar") else MANY) and grown < 8_000_000


def test_a_finished_run_is_resumed_and_exported(tmp_path):
    path = tmp_path / "j"
    result = {"task": "caption", "caption": "a caption of some length " * 10, "tokens": 9}
    with Journal(path, HEADER) as journal:
        for number in range(MANY):
            journal.write(Record(f"{number}.png", "ok", results=(result,)))
    assert path.stat().st_size > 15_000_000
    for what in ("resume", "export"):
        entries, grown = probe(what, path)
        assert entries == MANY and grown < 8_000_000


def test_images_of_a_wide_table_are_held_a_few_at_a_time(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    # One row group of 50 MB, in pages of 1 MB: a page is what a reader must hold.
    rows = pyarrow.table({"image": [bytes([n % 256]) * 50_000 for n in range(1000)]})
    parquet.write_table(
        rows, tmp_path / "t.parquet", row_group_size=1000, compression=None, use_dictionary=False, write_batch_size=20
    )
    source, most = open_source(str(tmp_path / "t.parquet")), 0
    del rows
    before = pyarrow.total_allocated_bytes()
    for _ in source.items():
        most = max(most, pyarrow.total_allocated_bytes() - before)
    assert most < 10_000_000
