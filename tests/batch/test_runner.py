"""The loop of a run with something that answers in any order."""

from __future__ import annotations

import json
import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.batch.dedupe import Dedupe
from jaxphoton.batch.errors import BatchError
from jaxphoton.batch.journal import Journal
from jaxphoton.batch.questions import Question, Questions, parse_questions
from jaxphoton.batch.runner import Runner
from jaxphoton.batch.sources.item import Item, broken
from jaxphoton.batch.sources.selection import read_ahead
from jaxphoton.image.errors import ImageError
from jaxphoton.requests.answer import Answer, Result
from tests.batch.helpers import HEADER

PLAN = Questions((Question("caption"),))


class Shuffler:
    """Answers a few jobs at a time in random order, with the bytes of the image as its caption."""

    def __init__(self, seed: int = 0, ahead: int = 4, error=lambda job: None):
        self.random, self.ahead, self.error = random.Random(seed), ahead, error
        self.asked: list[str] = []

    def answer(self, jobs):
        held = []
        for job in jobs:
            self.asked.append(job.name)
            held.append(job)
            if len(held) >= self.ahead:
                yield self._one(held.pop(self.random.randrange(len(held))))
        while held:
            yield self._one(held.pop(self.random.randrange(len(held))))

    def _one(self, job):
        if (error := self.error(job)) is not None:
            return Answer(job.key, error=error)
        results = []
        for ask in job.asks:
            result = Result(
                {"caption": job.image.decode(), "answer": json.dumps(ask.arguments["question"])}
                if "question" in ask.arguments
                else {"caption": job.image.decode()}
            )
            result.tokens, result.finish_reason = (1, 2), "stop"
            results.append(result)
        return Answer(job.key, tuple(results), None, (3, 4), ("a note",))


def item(key: str, data: bytes | None = None, **columns) -> Item:
    return Item(key, f"in.tar#{key}", lambda: data or key.encode(), columns=columns)


def run(answerer, items, questions=PLAN, **options) -> dict:
    """Number -> record; every number once."""
    records = {}

    def sink(number, record):
        assert number not in records
        records[number] = record

    Runner(answerer, questions, sink, **options).run(items)
    return records


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 2**32), st.integers(1, 9))
def test_every_item_has_a_record_of_its_own(good, seed, ahead):
    items = [
        item(f"{n}.png") if fine else broken(f"{n}.png", "x", "bad-entry", "no image") for n, fine in enumerate(good)
    ]
    records = run(Shuffler(seed, ahead), items)
    assert sorted(records) == list(range(len(good)))
    for number, fine in enumerate(good):
        record = records[number]
        assert record.key == f"{number}.png"
        if fine:
            assert record.results[0]["caption"] == record.key and record.status == "ok"
            assert (record.width, record.height, record.warnings) == (4, 3, ("a note",))
        else:
            assert (record.status, record.reason, record.fault) == ("failed", "bad-entry", "no image")


def test_a_run_that_is_stopped_finishes_what_it_has_begun():
    seen = []
    records = run(Shuffler(), (item(f"{n}") for n in range(1000)), stopped=lambda: len(seen) > 5 or seen.append(0))
    assert 0 < len(records) < 10


def test_errors_of_one_image_are_its_failure_and_others_end_the_run():
    faults = {
        "a": ImageError("a", "truncated", "the file is cut short"),
        "b": PermissionError(13, "not allowed"),
    }
    records = run(Shuffler(error=lambda job: faults.get(job.name)), [item("a"), item("b"), item("c")])
    assert [(r.reason, r.fault) for _, r in sorted(records.items())] == [
        ("truncated", "the file is cut short"),
        ("unreadable", "not allowed"),
        ("", ""),
    ]
    with pytest.raises(BatchError, match="too long"):
        run(Shuffler(error=lambda job: ValueError("too long")), [item("a")])
    asked = Questions((Question("query", "{what}"),))
    records = run(Shuffler(error=lambda job: ValueError("too long")), [item("a", what="?")], asked)
    assert records[0].reason == "bad-entry"


def test_an_exception_of_the_source_is_raised():
    def items():
        yield item("a")
        raise BatchError("the table is gone")

    with pytest.raises(BatchError, match="the table is gone"):
        run(Shuffler(), items())


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 2**32))
def test_equal_files_are_asked_about_once_also_after_a_resume(tmp_path_factory, contents, seed):
    path = tmp_path_factory.mktemp("dedupe") / "run.jsonl"
    items = [item(f"{n}.png", b"file %d" % content) for n, content in enumerate(contents)]
    half = len(items) // 2
    answerer = Shuffler(seed)
    records = {}
    for part in (items[:half], items[half:]):
        with Journal(path, HEADER) as journal:

            def sink(number, record, journal=journal):
                records[record.key] = record
                return journal.write(record)

            Runner(answerer, PLAN, sink, dedupe=Dedupe(path)).run(part)
    assert len(answerer.asked) == len(set(contents))
    assert {key: record.results[0]["caption"] for key, record in records.items()} == {
        f"{n}.png": f"file {content}" for n, content in enumerate(contents)
    }
    assert all(record.path == f"in.tar#{key}" for key, record in records.items())


def test_an_equal_file_shares_a_failure_too(tmp_path):
    with Journal(tmp_path / "run.jsonl", HEADER) as journal:
        records = {}

        def sink(number, record):
            records[record.key] = record
            return journal.write(record)

        answerer = Shuffler(ahead=9, error=lambda job: ImageError(job.name, "corrupt", "damaged"))
        Runner(answerer, PLAN, sink, dedupe=Dedupe(journal.path)).run([item("a", b"x"), item("b", b"x")])
    assert [records[key].reason for key in "ab"] == ["corrupt", "corrupt"] and answerer.asked == ["a"]


@given(st.lists(st.tuples(st.integers(), st.booleans())), st.integers(1, 4))
def test_reading_ahead_tells_the_place_of_each(items, threads):
    found = list(read_ahead(items, lambda each: each, lambda each: each[1], threads))
    assert sorted(found) == list(enumerate(items))


@pytest.mark.parametrize("others_slow", [True, False])
def test_what_takes_long_holds_up_no_other(others_slow):
    answer = threading.Event()

    def read(number):
        if number == 0:
            assert answer.wait(60)
        return number

    ahead = read_ahead(range(100), read, lambda number: others_slow or number == 0, threads=4)
    assert sorted(next(ahead) for _ in range(99)) == [(number, number) for number in range(1, 100)]
    answer.set()
    assert list(ahead) == [(0, 0)]


def test_so_many_go_past_one_that_takes_long():
    answer, asked = threading.Event(), []

    def items():
        for number in range(100):
            asked.append(number)
            yield number

    ahead = read_ahead(items(), lambda number: number or answer.wait(60) - 1, lambda number: not number, window=10)
    first = [next(ahead)[0] for _ in range(9)]
    assert first == list(range(1, 10)) and asked == list(range(10))
    answer.set()
    assert next(ahead) == (0, 0)
    ahead.close()


def test_reading_ahead_is_bounded():
    read = []
    ahead = read_ahead(range(1000), lambda number: read.append(number) or number, lambda number: True, threads=2)
    assert next(ahead)[0] in read
    assert len(read) <= 5
    ahead.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("caption", [Question("caption")]),
        ("caption:short,detect:a, b and c", [Question("caption", length="short"), Question("detect", "a, b and c")]),
        ("query:Day, or night?,point:dog", [Question("query", "Day, or night?"), Question("point", "dog")]),
    ],
)
def test_tasks_are_split_where_one_begins(text, expected):
    assert list(parse_questions(text, {"caption": Question("caption")})) == expected


@pytest.mark.parametrize("text", ["", "caption,", "count:cars", "detect", "query:"])
def test_other_tasks_are_refused(text):
    with pytest.raises(BatchError):
        parse_questions(text, {"caption": Question("caption")})
