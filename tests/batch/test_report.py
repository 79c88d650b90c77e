"""What the page of a journal holds."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jaxphoton.batch.errors import ExportError, JournalError
from jaxphoton.batch.journal.record import Header, Record
from jaxphoton.batch.report import ReportOptions, write_report
from jaxphoton.batch.report.entries import link
from jaxphoton.batch.report.outlines import outline
from jaxphoton.batch.sources import open_source
from jaxphoton.requests.skill import ARITY
from tests.batch.helpers import HEADER, caption, make_folder, make_journal, make_tar, picture

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!-- <script>",
    "\"quotes' & {{data}} {{script}} \\ \u2028",
    "\u202egpj.exe عربي",
    "\N{FISH} e\u0301",
    "lone \ud83d surrogate \udcff",
)


class Page(HTMLParser):
    """The elements of a page and the texts of its scripts."""

    def __init__(self, path):
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.scripts: dict[str | None, str] = {}
        self.text: str = path.read_text("utf-8")
        self.feed(self.text)
        self.data = json.loads(self.scripts["data"])
        self.entries = {entry["key"]: entry for entry in self.data["entries"]}

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        tag, attributes = self.tags[-1] if self.tags else ("", {})
        if tag == "script" and data.strip():
            self.scripts[attributes.get("id", attributes.get("type"))] = data

    def picture(self, key: str) -> Image.Image:
        data = self.scripts[f"thumbnail-{self.data['entries'].index(self.entries[key])}"]
        return Image.open(io.BytesIO(base64.b64decode(data)))


def report(folder, records, header=HEADER, **options) -> Page:
    journal = make_journal(folder / "journal", records, header)
    write_report(journal, folder / "report.html", **options)
    return Page(folder / "report.html")


def failed(key: str, reason: str = "corrupt", **fields: Any) -> Record:
    return Record(key, "failed", reason=reason, fault="the image data is damaged", **fields)


def test_texts_pictures_and_counts(tmp_path):
    root = make_folder(tmp_path / "images", ["a.png", "b/c.png"])
    records = [caption(item) for item in open_source(str(root)).items()]
    header = Header({"task": "caption", "sampling": {"temperature": 0}}, "m1")
    page = report(tmp_path, [*records, failed("x.png"), failed("y.png"), failed("z.png", "empty")], header)
    assert [entry["key"] for entry in page.data["entries"]] == ["a.png", "b/c.png", "x.png", "y.png", "z.png"]
    assert page.entries["a.png"]["results"][0]["text"] == "a picture: a.png"
    assert page.picture("b/c.png").size == (8, 6)
    assert page.entries["x.png"]["missing"] == "the journal does not say where it is"
    assert (page.data["images"], page.data["failed"], page.data["tokens"]) == (5, 3, 10)
    assert page.data["reasons"] == [["corrupt", 2], ["empty", 1]]
    assert page.data["openings"][0] == ["a picture: a.png", 1]
    assert ["sampling.temperature", 0] in page.data["settings"]
    assert page.data["notice"] == ""


def test_one_file_that_asks_for_nothing(tmp_path):
    page = report(tmp_path, [failed("x", path="https://example.org/x.png")])
    assert not [attributes for _, attributes in page.tags if {"src", "href", "action"} & set(attributes)]
    assert "url(" not in page.text and "@import" not in page.text
    policy = next(attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts(tmp_path, text):
    everywhere = Record(
        text,
        "ok",
        path=text,
        results=(
            {"task": "query", "question": text, "answer": text},
            {"task": text, "object": text, "objects": [{"x_min": 0, "y_min": 0, "x_max": 1, "y_max": 1}]},
        ),
        warnings=(text,),
        org_caption=text,
    )
    (tmp_path / "plain").mkdir()
    plain = report(tmp_path / "plain", [])
    page = report(
        tmp_path,
        [everywhere, failed(text + "2")],
        Header({text: text}, text),
        summary={text: text, "stages": {text: 1}},
    )
    assert page.tags == plain.tags
    shown = page.entries[text]
    assert shown["results"][0]["text"] == shown["results"][1]["asked"] == shown["old"] == shown["path"] == text
    assert shown["notes"] == [text]
    assert [text, text] in page.data["settings"] and [text, text] in page.data["summary"]


def test_boxes_and_points(tmp_path):
    inside, outside = (
        {"x_min": 0.25, "y_min": 0, "x_max": 0.5, "y_max": 1},
        {"x_min": -1, "y_min": 0, "x_max": 2, "y_max": 1},
    )
    broken = {"x_min": float("nan"), "y_min": 0, "x_max": float("inf"), "y_max": 1}
    results = (
        {"task": "detect", "object": "cat", "objects": [inside, outside, broken]},
        {"task": "detect", "object": "dog", "objects": []},
        {"task": "point", "object": "cat", "points": [{"x": 0.5, "y": 0.123456}, {"x": float("inf"), "y": 0}]},
        {"task": "segment", "object": "cat", "path": "M 0 0 1 0.5 z", "bbox": inside},
        {"task": "segment", "object": "cat", "path": "", "bbox": None, "parse_error": "no box"},
    )
    page = report(tmp_path, [Record("k", "ok", results=results, ms={"read": float("nan"), "decode": 2.5})])
    entry = page.entries["k"]
    assert [result["boxes"] for result in entry["results"]] == [
        [[0.25, 0, 0.5, 1], [0, 0, 1, 1]],
        [],
        None,
        [[0.25, 0, 0.5, 1]],
        [],
    ]
    assert [result["points"] for result in entry["results"]] == [None, None, [[0.5, 0.1235]], None, None]
    drawn = [["M", 0, 0], ["L", 1, 0.5], ["z"]]
    assert [result["outline"] for result in entry["results"]] == [None, None, None, drawn, None]
    assert page.data["objects"] == [["cat", 6]]
    assert entry["ms"] == 2.5 and page.data["ms"] == [["decode", 2.5]]


@pytest.mark.parametrize(
    ("path", "drawn"),
    [
        ("M 0 0 L 0.5 1 Z", [["M", 0, 0], ["L", 0.5, 1], ["Z"]]),
        ("m0,0-.5.25h1e-1V2", [["m", 0, 0], ["l", -0.5, 0.25], ["h", 0.1], ["V", 2]]),
        ("M 0 0 C 0 0 1 1 1 0 S 1 1 0 1", [["M", 0, 0], ["C", 0, 0, 1, 1, 1, 0], ["S", 1, 1, 0, 1]]),
        ("M 0 0 A 0.5 0.25 30 0 1 1 1", [["M", 0, 0], ["A", 0.5, 0.25, 30, 0, 1, 1, 1]]),
        # Up to the first fault.
        ("M 0 0 L 1 1 L 1", [["M", 0, 0], ["L", 1, 1]]),
        ("M 0 0 L 1 1 X 3", [["M", 0, 0], ["L", 1, 1]]),
        ('M 0 0 L 1 1"/><script>alert(1)</script>', [["M", 0, 0], ["L", 1, 1]]),
        ("M 0 0 L 1 1 L 1e99 0", [["M", 0, 0], ["L", 1, 1]]),
        ("M 0 0 A 1 1 0 2 1 1 1", None),
        ("L 1 1", None),
        ("M 0 0 Z", None),
        ("1 2 3", None),
        ("M NaN Infinity L 1 1", None),
        ("M 0 0 Z 1 1", None),
        ("", None),
        (None, None),
        (["M"], None),
        ("url(javascript:alert(1))", None),
    ],
)
def test_outlines_are_commands_and_numbers(path, drawn):
    assert outline(path) == drawn


@given(st.text('MmLlHhVvCcSsQqTtAaZzeEXx0123456789.,+- \n<"', max_size=80))
def test_whatever_a_path_holds_its_outline_can_be_drawn(text):
    for command, *numbers in outline(text) or ():
        assert isinstance(command, str) and len(numbers) == ARITY[command]
        assert all(isinstance(number, float) and abs(number) <= 360 for number in numbers)


def test_a_long_path_is_cut():
    assert len(outline("M 0 0" + " L 1 1" * 100_000) or ()) == 10_000


def test_flags_and_notes(tmp_path):
    def said(key, text, *warnings, finish="stop"):
        result = {"task": "caption", "caption": text, "finish_reason": finish}
        return Record(key, "ok", results=(result,), warnings=warnings)

    page = report(
        tmp_path,
        [
            said("cut", "one two three four five", "first of 12 frames", "cut off at the token limit", finish="length"),
            said("empty", "", "first of 3 frames", "empty text"),
            said("fine", "a dog in the snow"),
            said("repeated", "no no no no", "the text repeats itself"),
            *(said(f"more{n}", f"some text of {n} words") for n in range(20)),
        ],
    )
    flags = {key: entry["flags"] for key, entry in page.entries.items() if not key.startswith("more")}
    assert flags == {
        "cut": ["cut-off"],
        "empty": ["empty", "shortest"],
        "fine": [],
        "repeated": ["repeated", "shortest"],
    }
    assert page.entries["cut"]["notes"] == ["first of 12 frames"]
    assert page.data["notes"] == [["first of N frames", 2]]
    assert page.data["flags"] == {"cut-off": 1, "empty": 1, "repeated": 1}
    assert sum("longest" in entry["flags"] for entry in page.entries.values()) == 2


def test_pictures_out_of_a_source(tmp_path):
    tar = make_tar(tmp_path / "s.tar", {"a.png": picture(1), "b.png": picture(2), "c.png": b"broken"})
    source = open_source(str(tar))
    records = [caption(item) for item in source.items()]
    options = ReportOptions(images=10)
    without = report(tmp_path, records, options=options)
    assert all(not entry["thumbnail"] and "source" in entry["missing"] for entry in without.entries.values())
    page = report(tmp_path, [], source=source, options=options)
    assert page.picture(records[1].key).size == (8, 6)
    assert page.entries[records[2].key]["missing"] == "not an image in a known format"


def test_pictures_are_small_and_upright(tmp_path):
    image = Image.new("RGB", (600, 300), (200, 40, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "turned.jpg").read_bytes()[:-200])
    records = [
        Record("turned", "ok", path=str(tmp_path / "turned.jpg")),
        failed("cut", "truncated", path=str(tmp_path / "cut.jpg")),
        failed("gone", "not-found", path=str(tmp_path / "gone.jpg")),
    ]
    page = report(tmp_path, records, options=ReportOptions(thumbnail=100))
    assert page.picture("turned").size == (50, 100)
    red, green, _ = np.asarray(page.picture("turned").convert("RGB"))[50, 25]
    assert red > 150 > green
    assert page.entries["cut"]["thumbnail"] == [50, 100]
    assert page.entries["gone"]["missing"] == "no such file"


def long_run():
    for n in range(400):
        text = " ".join(f"w{chr(97 + n % 7)}{i}" for i in range(10))
        finish = "length" if n % 100 == 1 else "stop"
        yield Record(f"{n:03}", "ok", results=({"task": "caption", "caption": text, "finish_reason": finish},))
    yield from (failed(f"f{n}") for n in range(9))
    yield Record("long", "ok", results=({"task": "caption", "caption": "many words " * 40 + "end"},))
    yield Record("noted", "ok", warnings=("rotated",))


def test_many_images_are_sampled(tmp_path):
    page = report(tmp_path, long_run(), options=ReportOptions(images=20, odd=5))
    keys = set(page.entries)
    assert {"001", "101", "201", "301", "long", "noted"} <= keys
    assert sum(key.startswith("f") for key in keys) >= 5
    assert len(keys) < 200 and page.data["images"] == 411 and page.data["failed"] == 9
    assert page.data["lengths"]["texts"] == 401
    assert page.data["notice"] == (
        "Shown are a sample of 20 of 411 images, the same in every report, and 5 of the 9 failed and all 5 flagged."
    )


def test_the_sample_does_not_depend_on_the_order(tmp_path):
    (tmp_path / "a").mkdir()
    one = report(tmp_path, long_run(), options=ReportOptions(images=20, odd=5))
    other = report(tmp_path / "a", reversed(list(long_run())), options=ReportOptions(images=20, odd=5))
    assert one.entries.keys() == other.entries.keys()


def test_the_last_record_of_a_key_counts(tmp_path):
    again = Record("x", "ok", results=({"task": "caption", "caption": "now"},))
    page = report(tmp_path, [failed("x"), again])
    assert (page.data["images"], page.data["failed"], page.entries["x"]["status"]) == (1, 0, "ok")


def test_damaged_lines_are_counted(tmp_path):
    journal = make_journal(tmp_path / "journal", [failed("x")])
    journal.write_bytes(journal.read_bytes() + b"{broken\n")
    write_report(journal, tmp_path / "report.html")
    data = Page(tmp_path / "report.html").data
    assert (data["images"], data["damage"]) == (1, 1)


def test_answers_that_were_asked_again_are_counted(tmp_path):
    def record(key: str, *results: tuple[str, int]) -> Record:
        end = {"tokens": 5, "finish_reason": "stop"}
        told = [{"task": "caption", "caption": text, **end, "retries": retries} for text, retries in results]
        return Record(key, "ok", results=tuple(told))

    loop = "so it goes, " * 4
    records = [record("a", ("a cat", 1), (loop, 3)), record("b", ("a dog", 0)), record("c", ("a cat", 2))]
    assert report(tmp_path, records).data["again"] == [3, 2]


def test_summary(tmp_path):
    summary = {
        "images_per_s": 41.2,
        "by": {"gpu": "H"},
        "nan": float("nan"),
        "stages": {"read": 0.25, "idle": float("nan")},
    }
    page = report(tmp_path, [], summary=summary)
    assert page.data["summary"] == [["images_per_s", 41.2], ["by.gpu", "H"], ["nan", "NaN"]]
    assert page.data["stages"] == [["read", 0.25]]


def test_links():
    assert link("/a b/ü#.png") == "" and link("/a b/ü?.png") == "file:///a%20b/%C3%BC%3F.png"
    assert link(os.fsdecode(b"/\xe9.png")) == "file:///%E9.png"
    assert link("https://example.org/a b") == "https://example.org/a%20b"
    assert link("javascript:alert(1)") == link("a.png") == link("/\ud83d.png") == link("") == ""


def test_faults(tmp_path):
    journal = make_journal(tmp_path / "journal", [])
    with pytest.raises(ExportError, match="is the journal itself"):
        write_report(journal, journal)
    with pytest.raises(JournalError, match="No such file"):
        write_report(tmp_path / "none", tmp_path / "report.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ExportError, match="folder: "):
        write_report(journal, tmp_path / "folder")
    with pytest.raises(ValueError, match="quality 1 to 100"):
        ReportOptions(quality=0)


def test_a_fault_leaves_the_old_page(tmp_path, monkeypatch):
    page = report(tmp_path, [failed("x")])
    monkeypatch.setattr("jaxphoton.batch.report.page.entry", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(tmp_path / "journal", tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text("utf-8") == page.text
    assert not re.search("tmp", " ".join(os.listdir(tmp_path)))
