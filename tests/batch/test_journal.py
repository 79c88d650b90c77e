"""The journal: resume, damage, settings, retries."""

from __future__ import annotations

import json
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.batch.errors import JournalError, SettingsDiffer
from jaxphoton.batch.journal import Journal
from jaxphoton.batch.journal.reading import JournalReader
from jaxphoton.batch.journal.record import Header, Record, from_line, to_line
from tests.batch.helpers import HEADER, json_lines, make_journal

BOX = {"x_min": 0.1, "y_min": 0, "x_max": 0.5, "y_max": 1}
RECORDS = [
    Record(
        "a.png", "ok", "/x/a.png", 8, 6, ({"task": "caption", "caption": "é\n\u2028", "tokens": 3},), {"decode": 1.5}
    ),
    Record("b.png", "failed", reason="corrupt", fault="the image data is damaged"),
    Record("c.png", "ok", results=({"task": "detect", "object": "cat", "objects": [BOX]},), warnings=("w",)),
]


def records(path) -> list[Record]:
    with JournalReader(path) as journal:
        return list(journal.records())


def failed(key: str) -> Record:
    return Record(key, "failed", reason="corrupt", fault="damaged")


def test_what_was_written_is_read(tmp_path):
    path = make_journal(tmp_path / "new" / "run.jsonl", RECORDS)
    assert records(path) == RECORDS
    lines = json_lines(path)
    assert lines[0]["settings"] == HEADER.settings and lines[0]["model"] == "m1" and lines[0]["version"]
    assert lines[2] == {"key": "b.png", "status": "failed", "reason": "corrupt", "fault": "the image data is damaged"}


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.booleans()), max_size=30), st.integers(0, 30))
def test_a_journal_that_is_open_is_read_as_one_that_is_closed(tmp_path_factory, written, resumed):
    path = tmp_path_factory.mktemp("journal") / "j"
    whole = [Record(key, "ok" if good else "failed", path=str(place)) for place, (key, good) in enumerate(written)]
    for part in (whole[:resumed], whole[resumed:]):
        with Journal(path, HEADER) as journal:
            for record in part:
                journal.write(record)
            with journal.reader() as open_, JournalReader(path) as closed:
                assert list(open_.records()) == list(closed.records())
                for key in "abcdef":
                    assert open_.get(key) == closed.get(key) and (key in open_) == (key in closed)
                assert open_.damage == closed.damage == journal.damage


def test_reading_an_open_journal_goes_through_it_once(tmp_path, monkeypatch):
    with Journal(tmp_path / "j", HEADER) as journal:
        for record in RECORDS:
            journal.write(record)
        read = []
        monkeypatch.setattr(
            "jaxphoton.batch.journal.reading.from_line", lambda line: read.append(line) or from_line(line)
        )
        with journal.reader() as reader:
            assert list(reader.records()) == RECORDS
    assert len(read) == 1 + 1 + len(RECORDS)  # its header, then the whole


def test_the_header_is_there_at_once(tmp_path):
    with Journal(tmp_path / "j", HEADER):
        with JournalReader(tmp_path / "j") as journal:
            assert journal.header == HEADER and not list(journal.records())


@given(st.text(), st.text(), st.integers(0, 10**6))
def test_any_text_survives(key, text, tokens):
    record = Record(key, "ok", results=({"task": "caption", "caption": text, "tokens": tokens},))
    line = to_line(record)
    assert line.count(b"\n") == 1 and from_line(line) == record


def test_an_undecodable_file_name_survives(tmp_path):
    key = os.fsdecode(b"caf\xe9.png")
    path = make_journal(tmp_path / "j", [Record(key, "ok")])
    assert [record.key for record in records(path)] == [key]
    with Journal(path, HEADER) as journal:
        assert key in journal


def test_what_is_done_is_known_again(tmp_path):
    path = make_journal(tmp_path / "j", RECORDS)
    with Journal(path, HEADER) as journal:
        assert [key in journal for key in ("a.png", "b.png", "c.png", "d.png")] == [True, True, True, False]
        assert journal.counts == {"ok": 2, "failed": 1}
    with Journal(path, HEADER, retry_failed=True) as journal:
        assert [key in journal for key in ("a.png", "b.png", "c.png")] == [True, False, True]
        journal.write(Record("b.png", "ok"))
        assert "b.png" in journal and journal.counts == {"ok": 3, "failed": 0}
    with Journal(path, HEADER) as journal:
        assert journal.counts == {"ok": 3, "failed": 0}


def test_the_last_record_of_a_key_counts(tmp_path):
    path = make_journal(tmp_path / "j", [failed("a"), Record("b", "ok"), failed("a"), Record("a", "ok", width=5)])
    with JournalReader(path) as journal:
        assert [(record.key, record.status) for record in journal.records()] == [("b", "ok"), ("a", "ok")]
        found = journal.get("a")
        assert found is not None and found.width == 5 and journal.get("c") is None


# Every offset, not a sample of them.
def test_a_last_line_torn_anywhere_is_cut_off(tmp_path):
    whole = make_journal(tmp_path / "whole", RECORDS).read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    path = tmp_path / "torn"
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        with Journal(path, HEADER) as journal:
            assert journal.torn == end - start and not journal.damage
            assert "b.png" in journal and "c.png" not in journal
            journal.write(RECORDS[2])
        assert path.read_bytes() == whole


@given(st.data())
def test_a_journal_cut_off_anywhere_loses_only_what_was_behind(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("cut")
    whole = make_journal(folder / "whole", RECORDS * 2).read_bytes()
    end = data.draw(st.integers(0, len(whole)))
    (folder / "j").write_bytes(whole[:end])
    with Journal(folder / "j", HEADER) as journal:
        assert not journal.damage
        rest = [record for record in RECORDS if record.key not in journal]
        for record in rest:
            journal.write(record)
    kept = whole[:end].count(b"\n") - 1
    assert len(rest) == max(0, 3 - max(0, kept))
    assert sorted(record.key for record in records(folder / "j")) == ["a.png", "b.png", "c.png"]


def test_a_damaged_line_is_reported_and_its_image_done_again(tmp_path):
    path = make_journal(tmp_path / "j", RECORDS)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = b'{"key": "b.png", "sta\0\0\0\n'
    lines.insert(3, b'{"key": 5, "status": "ok"}\n')
    lines.insert(4, b"\n")
    path.write_bytes(b"".join(lines))
    with Journal(path, HEADER) as journal:
        assert [damage.line for damage in journal.damage] == [3, 4, 5]
        assert "line 4: no key" in map(str, journal.damage)
        assert "b.png" not in journal and "c.png" in journal
    with JournalReader(path) as reader:
        assert [record.key for record in reader.records()] == ["a.png", "c.png"]
        assert [damage.line for damage in reader.damage] == [3, 4, 5]


WRONG = {
    "key": [5, None],
    "status": ["done", ["ok"]],
    "width": ["8", True, -1, 1e999, 1.5, 2**31],
    "warnings": [5, "w", [None]],
    "path": [7, {}],
    "ms": [3, []],
    "results": [
        None,
        ["x"],
        [{}],
        [{"task": 5}],
        [{"task": "caption", "caption": None}],
        [{"task": "caption", "caption": "c", "tokens": "3"}],
        [{"task": "caption", "caption": "c", "tokens": 3, "retries": -1}],
        [{"task": "detect", "object": "cat", "objects": {}}],
        [{"task": "detect", "object": "cat", "objects": [7]}],
        [{"task": "detect", "object": "cat", "objects": [BOX | {"x_min": "0"}]}],
        [{"task": "detect", "object": "cat", "objects": [{"x_min": 0}]}],
        [{"task": "point", "object": "cat", "points": [{"x": 0}]}],
        [{"task": "segment", "object": "cat", "path": "", "bbox": [0, 0, 1, 1]}],
    ],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_line_with_values_of_the_wrong_kind_is_damage(tmp_path, name, value):
    """As a bit that flips may leave them, and nobody wants to meet them in an export."""
    path = make_journal(tmp_path / "j", RECORDS)
    line = json.dumps({"key": "d.png", "status": "ok", "results": [{"task": "caption", "caption": ""}]} | {name: value})
    path.write_bytes(path.read_bytes() + line.encode() + b"\n" + to_line(RECORDS[0]))
    with JournalReader(path) as journal:
        assert [record.key for record in journal.records()] == ["b.png", "c.png", "a.png"]
        assert [damage.line for damage in journal.damage] == [5]


def test_json_that_is_nested_beyond_reason_is_damage(tmp_path):
    path = make_journal(tmp_path / "j", RECORDS)
    path.write_bytes(path.read_bytes() + b"[" * 100_000 + b"\n")
    with Journal(path, HEADER) as journal:
        assert len(journal.damage) == 1 and "nested too deeply" in journal.damage[0].fault


def test_other_settings_are_refused_by_name(tmp_path):
    path = make_journal(tmp_path / "j", RECORDS, Header({"length": "short", "crop": {"max": 12}, "t": 0}, "m1"))
    before = path.read_bytes()
    now = Header({"length": "long", "crop": {"max": 4}, "t": 0, "new": (1, 2)}, "m2")
    with pytest.raises(SettingsDiffer) as caught:
        Journal(path, now)
    assert caught.value.differences == [
        "crop.max was 12 and is now 4",
        'length was "short" and is now "long"',
        'model was "m1" and is now "m2"',
        "new was not set and is now [1, 2]",
    ]
    assert path.read_bytes() == before
    with Journal(path, now, allow_changes=True) as journal:
        assert "a.png" in journal
    with Journal(path, now) as journal, JournalReader(path) as reader:
        assert len(list(reader.records())) == 3 and reader.header.model == "m2"


def test_a_run_that_ended_before_its_first_image_binds_nobody(tmp_path):
    path = make_journal(tmp_path / "j", [], Header({"length": "short"}, "m1"))
    with Journal(path, Header({"length": "long"}, "m2")) as journal:
        journal.write(RECORDS[0])
    with JournalReader(path) as reader:
        assert (reader.header.model, len(list(reader.records()))) == ("m2", 1)
    assert len(json_lines(path)) == 2
    with pytest.raises(SettingsDiffer):
        Journal(path, HEADER)


def test_another_version_may_go_on(tmp_path):
    path = make_journal(tmp_path / "j", RECORDS, Header(HEADER.settings, "m1", version="0.0.1", created="2020"))
    with Journal(path, HEADER) as journal:
        assert "a.png" in journal
    assert len(json_lines(path)) == 4


@pytest.mark.parametrize("content", [b"my precious notes", b'{"key": "a", "caption": "x"}\n', b"\n", b'{"jaxphoton'])
def test_other_files_are_left_alone(tmp_path, content):
    path = tmp_path / "captions.jsonl"
    path.write_bytes(content)
    if content == b'{"jaxphoton':  # a header that was being written
        make_journal(path, RECORDS)
        assert records(path) == RECORDS
        return
    for opening in (lambda: Journal(path, HEADER), lambda: JournalReader(path)):
        with pytest.raises(JournalError, match="not a jaxphoton journal"):
            opening()
    assert path.read_bytes() == content


def test_journals_that_cannot_be_opened(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "later").write_bytes(b'{"jaxphoton_journal": 2, "settings": {}, "model": ""}\n')
    for path, message in ((tmp_path / "folder", "no regular file"), (tmp_path / "later", "format 2")):
        with pytest.raises(JournalError, match=message):
            Journal(path, HEADER)
    with pytest.raises(JournalError, match="No such file"):
        JournalReader(tmp_path / "none")
    with pytest.raises(JournalError, match="null (byte|character)"):
        JournalReader("a\0b")
    (tmp_path / "empty").touch()
    with pytest.raises(JournalError, match="empty"):
        JournalReader(tmp_path / "empty")


def test_a_full_disk_leaves_whole_lines(tmp_path, monkeypatch):
    real = os.write
    with Journal(tmp_path / "j", HEADER) as journal:
        journal.write(RECORDS[0])
        monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:10]))
        with pytest.raises(JournalError, match="disk is full"):
            journal.write(RECORDS[1])
        monkeypatch.undo()
        assert "b.png" not in journal
        journal.write(RECORDS[2])
    assert [record.key for record in records(tmp_path / "j")] == ["a.png", "c.png"]


def test_a_failing_disk_is_told(tmp_path, monkeypatch):
    def fsync(fd):
        synced.set()
        raise OSError(5, "Input/output error")

    synced = threading.Event()
    journal = Journal(tmp_path / "j", HEADER, sync_lines=1)
    monkeypatch.setattr(os, "fsync", fsync)
    journal.write(RECORDS[0])
    assert synced.wait(60)
    with pytest.raises(JournalError, match="Input/output"):
        journal.close()
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.write(RECORDS[1])


@pytest.mark.parametrize(("lines", "seconds"), [(3, 3600.0), (10**6, 0.01)])
def test_lines_are_synced_by_number_and_by_time(tmp_path, monkeypatch, lines, seconds):
    synced = threading.Event()
    with Journal(tmp_path / "j", HEADER, sync_lines=lines, sync_s=seconds) as journal:
        monkeypatch.setattr(os, "fsync", lambda fd: synced.set())
        for number in range(3):
            assert number == 0 or lines > 3 or not synced.is_set()
            journal.write(Record(str(number), "ok"))
        assert synced.wait(60)


def test_threads_may_write_together(tmp_path):
    with Journal(tmp_path / "j", HEADER, sync_lines=2) as journal:

        def write(first):
            for number in range(first, first + 100):
                journal.write(Record(str(number), "ok"))

        threads = [threading.Thread(target=write, args=(100 * each,)) for each in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert journal.counts == {"ok": 400, "failed": 0}
    assert {record.key for record in records(tmp_path / "j")} == {str(number) for number in range(400)}
