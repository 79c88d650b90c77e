"""A skill is one entry of the registry and one form of a family: everything else follows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jaxphoton import Ask, batch
from jaxphoton.batch.errors import BatchError
from jaxphoton.batch.questions import parse_questions
from jaxphoton.bodies.skills import parsed
from jaxphoton.cli.main import build_parser
from jaxphoton.models.moondream import skills as moondream
from jaxphoton.models.moondream.prompts import Prompt, detect_prompt
from jaxphoton.models.moondream.skills.detect import Detect
from jaxphoton.requests.skill import BOXES, INTEGER, TEXT, Argument, Field, Skill
from jaxphoton.requests.skills import SINGLE_SKILLS, SKILLS, kinds, readable, register
from tests.batch.helpers import json_lines

EXAMPLES = Path(__file__).parents[2] / "examples" / "shapes"
PICTURES = sorted(path for path in EXAMPLES.iterdir() if path.suffix == ".png")[:3]

COUNT = Skill(
    "count",
    help="count objects",
    description="Counts every object of a kind: {key, count}.",
    arguments=(Argument("object", "text", "what to count"),),
    fields=(Field("count", INTEGER),),
    asked="object",
    table="counts",
    defaults=SKILLS["detect"].defaults,
    tokens_per_object=3,
)


@dataclass(frozen=True)
class Count:
    """Counts the boxes of a detection."""

    prompt: Prompt
    grammar: str = "detect"
    reasoning: bool = False

    @staticmethod
    def grammars(config) -> Mapping[str, Any]:
        return {}

    @classmethod
    def asked(cls, model, object: str) -> Count:
        return cls(detect_prompt(model.config, model.encode, object))

    def parse(self, generation, decode) -> dict[str, Any]:
        return {"count": len(Detect(self.prompt).parse(generation, decode)["objects"])}

    def reader(self, decoder) -> None:
        return None


@pytest.fixture
def count(monkeypatch):
    monkeypatch.setitem(moondream.FORMS, "count", Count)
    register(COUNT)
    yield COUNT
    del SKILLS["count"]


def test_a_new_skill_is_asked_through_the_api(count, shapes):
    found = [len(shapes.detect(path, "object")["objects"]) for path in PICTURES]
    pending = shapes.submit(PICTURES[0], Ask("count", {"object": "object"}), lambda event: None)
    assert pending.future.result(60) == {"count": found[0]}
    items = {item.key: item.result for item in shapes.batch("count", PICTURES, object="object")}
    assert [items[number] for number in range(3)] == [{"count": each} for each in found]
    with pytest.raises(TypeError, match="count has no argument 'length'; it takes object"):
        shapes.submit(PICTURES[0], Ask("count", {"length": "short"}))
    with pytest.raises(ValueError, match="count needs an image"):
        shapes.submit(None, Ask("count", {"object": "object"}))


def test_a_new_skill_goes_through_a_run_to_lines_and_tables(count, shapes, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    found = {str(path): len(shapes.detect(path, "object")["objects"]) for path in PICTURES}
    for ask in (Ask("count", {"object": "object"}), "count:object,detect:object"):
        name = "one" if isinstance(ask, Ask) else "two"
        for end in (".jsonl", ".parquet"):
            out = tmp_path / f"{name}{end}"
            page = tmp_path / f"{name}{end}.html"
            result = batch.run([str(path) for path in PICTURES], out, ask=ask, model=shapes, report=page)
            assert (result.done, result.failed, result.lost) == (3, 0, 0)
            assert "count" in page.read_text(encoding="utf-8")
    one = json_lines(tmp_path / "one.jsonl")
    assert {line["key"]: line["count"] for line in one} == {line["key"]: found[line["key"]] for line in one}
    assert list(one[0]) == ["key", "object", "count", "tokens", "finish_reason", "error", "reason", "warnings"]
    for line in json_lines(tmp_path / "two.jsonl"):
        counted, boxes = line["results"]
        assert counted["count"] == len(boxes["objects"]) == found[line["key"]]
        assert boxes["count"] == 0 and counted["objects"] == []  # what a result has not, it has nothing of
    table = parquet.read_table(tmp_path / "two.parquet")
    assert str(table.schema.field("counts").type.value_type) == "struct<object: string, count: int32>"
    for row in table.to_pylist():
        assert row["counts"] == [{"object": "object", "count": found[row["key"]]}]
        assert len(row["objects"]) == found[row["key"]] and row["points"] == []


def test_a_new_skill_has_a_command_columns_for_ray_and_words_for_people(count, capsys):
    parser, commands = build_parser()
    args = parser.parse_args(["count", "photos/", "--object", "cat", "--max-objects", "3"])
    assert (args.command, args.object, args.max_objects) == ("count", "cat", 3) and "count" in commands
    assert [question.text for question in parse_questions("count:cat,detect:a, b", {})] == ["cat", "a, b"]
    assert readable([{"task": "count", "object": "cat", "count": 3}]) == "3"
    body = parsed("count", b'{"image_url": "data:,x", "object": "cat"}')
    assert (body.picture, body.ask) == (b"x", Ask("count", {"object": "cat"}))
    ray = pytest.importorskip("jaxphoton.integrations.ray")
    assert [(field.name, str(field.type)) for field in ray.columns_of("count")] == [("count", "int32")]


def test_a_skill_for_single_asks_has_neither_command_nor_column_nor_place_in_a_run(monkeypatch, shapes, tmp_path):
    monkeypatch.setitem(moondream.FORMS, "count", Count)
    register(dataclasses.replace(COUNT, in_runs=False, fields=(Field("caption", INTEGER),)))
    try:
        assert shapes.submit(PICTURES[0], Ask("count", {"object": "object"})).future.result(60)["count"] > 0
        assert "count" not in build_parser()[1] and kinds()["caption"] is TEXT
        for ask in (Ask("count", {"object": "object"}), "count:object"):
            with pytest.raises(BatchError, match="count.* is none of caption, query, detect, point, segment"):
                batch.run([str(PICTURES[0])], tmp_path / "out.jsonl", ask=ask, model=shapes)
        with pytest.raises(ValueError, match="there is a skill 'count' already"):
            register(COUNT)
    finally:
        del SINGLE_SKILLS["count"]


def test_a_family_that_has_not_a_skill_says_so(shapes):
    register(COUNT)
    try:
        with pytest.raises(ValueError, match="no prompt for 'count'; it has: caption, query"):
            shapes.submit(PICTURES[0], Ask("count", {"object": "cat"}))
    finally:
        del SKILLS["count"]


@pytest.mark.parametrize(
    ("name", "fields", "fault"),
    [
        ("caption", (Field("caption", TEXT),), "there is a skill 'caption' already"),
        ("count", (Field("caption", BOXES),), "the field 'caption' of other skills is of another kind"),
    ],
)
def test_what_cannot_be_registered(name, fields, fault):
    with pytest.raises(ValueError, match=fault):
        register(dataclasses.replace(COUNT, name=name, fields=fields))
    assert "count" not in SKILLS and kinds()["caption"] is TEXT


@pytest.mark.parametrize("name", ["cation", None, ["caption"]])
def test_an_unknown_skill_is_refused_with_those_that_there_are(shapes, name):
    with pytest.raises(ValueError, match="skill must be one of caption, query, detect, point, segment, chat, got"):
        shapes.submit(PICTURES[0], Ask(name))
