"""Every line of a run has the same keys and types, whatever happened to its images, so that its parts load as one."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxphoton.batch.exports import ExportOptions, export
from jaxphoton.batch.exports.lines import LineForm
from jaxphoton.batch.journal.record import Header, Record
from jaxphoton.batch.questions import Question, Questions, parse_questions
from tests.batch.helpers import json_lines, make_journal

BOX = {"x_min": 0, "y_min": 0.25, "x_max": 0.5, "y_max": 1}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
UNIT = st.one_of(st.floats(0, 1), st.integers(0, 1))
PLACES = {
    "detect": st.fixed_dictionaries(dict.fromkeys(BOX, UNIT)),
    "point": st.fixed_dictionaries({"x": UNIT, "y": UNIT}),
}
TASKS = (
    "caption:normal",
    "caption:short,caption:long",
    "query:Is it day?",
    "detect:cat",
    "point:cat",
    "segment:cat",
    "caption,query:Why?,detect:cat,point:dog,segment:dog",
)


def questions_of_runs() -> st.SearchStrategy[Questions]:
    tasks = st.sampled_from(TASKS).map(lambda text: parse_questions(text, {"caption": Question("caption")}))
    kinds = [{"type": "danbooru"}, {"length": "50", "extra": ("no-text", "pg")}, {"type": "e621", "name": "A, (b)\n"}]
    tasks |= st.sampled_from(kinds).map(lambda asked: (Question("caption", **asked),))
    prompts = st.sampled_from(["Say it in rhyme.", "short", "any", "50 (type a)"]).map(
        lambda text: (Question("caption", text),)
    )
    thoughts = st.sampled_from([None, True, False]).map(lambda on: (Question("query", "Why?", reasoning=on),))
    several = st.integers(1, 3)
    return st.builds(lambda t, n: Questions(t, {"temperature": 1.0}, n), tasks | prompts | thoughts, several)


def results(draw, question: Question) -> dict[str, Any]:
    """An answer as `Question.result` makes it."""
    asked = {"caption": "prompt", "query": "question"}.get(question.kind, "object")
    row: dict[str, Any] = {"task": question.kind}
    if question.kind == "caption" and not question.text:
        row |= {"length": question.length} | ({"type": question.type} if question.type else {})
    else:
        row |= {asked: question.text}
    if question.kind in PLACES:
        row["objects" if question.kind == "detect" else "points"] = draw(st.lists(PLACES[question.kind], max_size=2))
    elif question.kind == "segment":
        row |= {"path": draw(TEXT), "bbox": draw(st.none() | st.just(BOX))}
        row |= draw(st.sampled_from([{}, {"parse_error": "no path"}]))
    else:
        row["caption" if question.kind == "caption" else "answer"] = draw(TEXT)
    if question.reasoning:
        row["reasoning"] = {"text": draw(TEXT), "grounding": []}
    return row | {"tokens": draw(st.integers(0, 900)), "finish_reason": draw(st.sampled_from(["stop", "length"]))}


@st.composite
def runs(draw) -> tuple[Questions, list[list[Record]]]:
    """Questions, and the records of each of its parts."""
    questions, number = draw(questions_of_runs()), 0
    times = [questions.captions if question.kind == "caption" else 1 for question in questions.each]
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        part = []
        for _ in range(draw(st.integers(1, 4))):
            number += 1
            key = f"image{number}" + draw(st.sampled_from([".png", "ä.png", os.fsdecode(b"\xe9.png")]))
            if draw(st.booleans()):
                fault, reason = draw(TEXT), draw(st.sampled_from(["corrupt", "empty"]))
                part.append(Record(key, "failed", f"/x/{key}", fault=fault, reason=reason))
                continue
            rows = tuple(results(draw, task) for task, n in zip(questions.each, times, strict=True) for _ in range(n))
            warnings = tuple(draw(st.lists(TEXT, max_size=2)))
            part.append(Record(key, "ok", f"/x/{key}", 8, 6, rows, warnings=warnings))
        parts.append(part)
    return questions, parts


def written(folder: Path, questions: Questions, parts: list[list[Record]], suffix: str) -> list[Path]:
    """The output of each part, from a journal of its own."""
    files = []
    for number, part in enumerate(parts):
        journal = make_journal(folder / f"{number}.journal", part, Header(questions.description(), "m1"))
        files.append(folder / f"{number}{suffix}")
        export(journal, files[-1])
    return files


def shape(value: Any) -> Any:
    """The types of a value; of a list, that of the element which says most, if it has any."""
    if isinstance(value, Mapping):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        shapes = sorted(map(shape, value), key=lambda each: len(str(each)))
        assert all(same(each, shapes[-1]) for each in shapes)
        return shapes[-1:]
    assert value is not None
    return type(value).__name__


def same(one: Any, other: Any) -> bool:
    """Whether two shapes fit: a list without elements fits every list."""
    if isinstance(one, list) and isinstance(other, list):
        return not one or not other or same(one[0], other[0])
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[n], other[n]) for n in one)
    return one == other


@given(runs())
def test_all_lines_of_all_parts_have_the_same_keys_and_types(run):
    questions, parts = run
    with tempfile.TemporaryDirectory() as folder:
        files = written(Path(folder), questions, parts, ".jsonl")
        lines = [line for file in files for line in json_lines(file)]
    assert len(lines) == sum(map(len, parts))
    for line in lines:
        assert list(line) == list(lines[0]) and same(shape(line), shape(lines[0]))
    # And so are those that are printed.
    form = LineForm(questions.description())
    printed = [json.loads(form.text(record)) for part in parts for record in part]
    assert printed == lines


@pytest.mark.parametrize("task", ["query:Is it day?", "segment:cat"])
def test_lines_without_anything_found_can_become_a_parquet_file(task, tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow.json"), pytest.importorskip("pyarrow.parquet")
    questions = Questions(parse_questions(task, {}))
    (file,) = written(
        tmp_path, questions, [[Record("a.png", "failed", "/x/a.png", fault="x", reason="corrupt")]], ".jsonl"
    )
    parquet.write_table(arrow.read_json(file), tmp_path / "x.parquet")


@settings(max_examples=12)
@given(runs())
def test_parts_load_as_one(run):
    datasets, pandas = pytest.importorskip("datasets"), pytest.importorskip("pandas")
    questions, parts = run
    # Lists without elements have no type: what is found at all, is found in the first part (docs/batch.md).
    found = {"objects": [BOX], "points": [{"x": 0, "y": 1}], "reasoning": {"text": "", "grounding": []}}
    whole = next((record for part in parts for record in part if record.results), None)
    if whole is not None:
        rows = tuple(row | {name: found[name] for name in row if name in found} for row in whole.results)
        parts[0].insert(0, Record("first.png", "ok", results=rows))
    elif any(question.kind in PLACES for question in questions.each):
        return
    count = sum(map(len, parts))
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        for suffix, kind in ((".jsonl", "json"), (".parquet", "parquet")):
            files = [str(file) for file in written(Path(folder), questions, parts, suffix)]
            loaded = datasets.load_dataset(kind, data_files=files, split="train", cache_dir=f"{folder}/{kind}")
            assert len(loaded) == count
            del loaded
        for file, part in zip(Path(folder).glob("*.jsonl"), parts, strict=True):
            assert len(pandas.read_json(io.StringIO(file.read_text()), lines=True)) <= count and part
        dataset = pytest.importorskip("pyarrow.dataset")
        assert dataset.dataset(files).to_table().num_rows == count


def test_texts_that_are_not_there_are_empty_and_nothing_is_null(tmp_path):
    questions = Questions((Question("caption"),))
    fine = Record("a", "ok", results=({"task": "caption", "length": "normal", "caption": "c", "tokens": 1},))
    turned = Record("b", "ok", results=fine.results, warnings=("rotated", "cut off"))
    broken = Record("c", "failed", reason="empty", fault="the file is empty")
    first, second, third = json_lines(written(tmp_path, questions, [[fine, turned, broken]], ".jsonl")[0])
    one = {"length": "normal", "caption": "c", "tokens": 1, "finish_reason": ""}
    assert first == {"key": "a", **one, "error": "", "reason": "", "warnings": ""}
    assert second == {"key": "b", **one, "error": "", "reason": "", "warnings": "rotated; cut off"}
    none = {"length": "", "caption": "", "tokens": 0, "finish_reason": "error"}
    assert third == {"key": "c", **none, "error": "the file is empty", "reason": "empty", "warnings": ""}


def test_several_answers_fail_as_several(tmp_path):
    questions = Questions(parse_questions("caption:short,detect:cat", {}), {"temperature": 1.0}, captions=2)
    (line,) = json_lines(
        written(tmp_path, questions, [[Record("c", "failed", reason="empty", fault="f")]], ".jsonl")[0]
    )
    assert [each["task"] for each in line["results"]] == ["caption", "caption", "detect"]
    fields = ["task", "length", "caption", "object", "objects", "tokens", "finish_reason"]
    assert all(list(each) == fields and each["finish_reason"] == "error" for each in line["results"])


def test_a_journal_of_two_plans_has_lines_of_one_form(tmp_path):
    """As `--allow-changes` leaves it."""
    answer = {"task": "query", "question": "q", "answer": "a", "tokens": 1, "finish_reason": "stop"}
    text = {"task": "caption", "length": "short", "caption": "c", "tokens": 1, "finish_reason": "stop"}
    records = [Record("a", "ok", results=(answer,)), Record("b", "ok", results=(text,)), Record("c", "failed")]
    lines = json_lines(written(tmp_path, Questions((Question("caption"),)), [records], ".jsonl")[0])
    assert len({tuple(line) for line in lines}) == 1 and [line["answer"] for line in lines] == ["a", "", ""]


def test_json_files_beside_the_images_are_such_lines(tmp_path):
    records = [Record(key, "ok", results=({"task": "caption", "length": "short", "caption": key},)) for key in "ab"]
    records[1] = Record("b", "ok", results=records[1].results, warnings=("rotated",))
    journal = make_journal(tmp_path / "j", records, Header(Questions((Question("caption"),)).description(), "m1"))
    export(journal, tmp_path / "out", options=ExportOptions(extension=".json"))
    one, other = (json.loads((tmp_path / "out" / f"{key}.json").read_text()) for key in "ab")
    assert list(one) == list(other) and other["warnings"] == "rotated"
