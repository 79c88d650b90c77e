"""Every finished answer is JSON that is valid against its schema, or the schema is refused by name."""

from __future__ import annotations

import json
import math
import re

import jsonschema
import numpy as np
import pytest

from jaxphoton.constraints.automaton import pack_bits, unpack_bits
from jaxphoton.constraints.constraint import SchemaConstraint
from jaxphoton.constraints.protocol import ConstraintError
from jaxphoton.constraints.validator import Validator
from tests.constraints.conftest import VOCABULARY
from tests.constraints.schemas import SCHEMAS
from tests.constraints.walks import EOS, walk

SIZE = VOCABULARY + 12
WALKS = -(-2000 // len(SCHEMAS))


@pytest.fixture(scope="module")
def closing(json_tokenizer) -> list[int]:
    """Ids of which most end what is open."""
    return [index for index in range(10, VOCABULARY) if set(json_tokenizer.decode([index])) & set('"]}')]


def unique(pairs):
    assert len({key for key, _ in pairs}) == len(pairs), pairs
    return dict(pairs)


def finite(text):
    assert math.isfinite(float(text)), text
    return float(text)


def read(text: str):
    return json.loads(text, object_pairs_hook=unique, parse_float=finite, parse_constant=finite)


def answers(grammars, tokenizer, schema, closing, count) -> list[str]:
    make, texts = grammars.compile({"schema": schema}, False), []
    for seed in range(count):
        try:
            texts.append(tokenizer.decode(walk(make(), SIZE, seed, closing)))
        except TimeoutError:
            continue  # cut by a limit: said to be unfinished
    return texts


@pytest.mark.parametrize("name", SCHEMAS)
def test_finished_answers_are_valid(grammars, json_tokenizer, closing, name):
    schema = SCHEMAS[name]
    texts = answers(grammars, json_tokenizer, schema, closing, WALKS)
    for text in texts:
        jsonschema.validate(read(text), schema)
    assert len(texts) > WALKS // 2


def keys_of(grammars, tokenizer, schema, closing, count=60) -> set[str]:
    values = [read(text) for text in answers(grammars, tokenizer, schema, closing, count)]
    return {key for value in values if isinstance(value, dict) for key in value}


@pytest.mark.parametrize(
    ("schema", "allowed"),
    [
        (SCHEMAS["declared"], {"a", "b"}),
        ({"$ref": "#/$defs/x", "$defs": {"x": SCHEMAS["declared"]}}, {"a", "b"}),
        (SCHEMAS["declared and required"], {"a", "b", "z"}),
        (SCHEMAS["all of"], {"a", "b", "a0"}),
        (SCHEMAS["all of any of"], {"a", "b", "a0", "c", "d"}),
        (SCHEMAS["inheritance"], {"a", "b"}),
    ],
)
def test_keys_beyond_those_declared_are_not_written(grammars, json_tokenizer, closing, schema, allowed):
    assert keys_of(grammars, json_tokenizer, schema, closing) <= allowed


@pytest.mark.parametrize("name", ["object", "open", "map", "all of, one open", "patterns and the rest"])
def test_an_object_that_says_it_is_open_stays_open(grammars, json_tokenizer, closing, name):
    assert len(keys_of(grammars, json_tokenizer, SCHEMAS[name], closing)) > 10


def test_the_branches_of_any_of_are_not_mixed(grammars, json_tokenizer, closing):
    for text in answers(grammars, json_tokenizer, SCHEMAS["any of, common keys"], closing, 60):
        assert set(read(text)) in ({"id", "a"}, {"id", "b"}, {"id", "b", "a0"})


def test_keys_come_in_the_order_of_the_schema(grammars, json_tokenizer, closing):
    schema = {"allOf": [{"properties": {"z": True}}, {"properties": {"y": {"type": "null"}, "b": {"type": "null"}}}]}
    schema = {"type": "object", **schema, "properties": {"a": {"type": "null"}}, "required": ["a", "b", "y"]}
    for text in answers(grammars, json_tokenizer, schema, closing, 20):
        assert [key for key in read(text) if key != "z"] == ["y", "b", "a"]


def test_too_much_that_may_come_next_is_told(grammars, json_tokenizer):
    keys = {f"p{number}": {"type": "integer"} for number in range(1000)}
    constraint = grammars.compile({"schema": {"type": "object", "properties": keys}}, False)()
    with pytest.raises(ConstraintError, match="cannot be followed: .*limit|cannot be followed: .*max"):
        for letter in '{"p0":0,"p1':
            constraint.mask()
            constraint.accept(json_tokenizer.encode(letter)[0])


def test_a_number_ends(grammars, json_tokenizer):
    make = grammars.compile({"schema": {"type": "number"}}, False)
    constraint, digit = make(), json_tokenizer.encode("7")[0]
    for _ in range(60):
        assert unpack_bits(constraint.mask(), SIZE)[digit]
        constraint.accept(digit)
    assert np.flatnonzero(unpack_bits(constraint.mask(), SIZE)).tolist() == [0]


def test_white_space_is_not_written(grammars, json_tokenizer):
    constraint = grammars.compile({"schema": {"type": "array", "items": {"type": "null"}}}, False)()
    blanks = [index for index in range(10, VOCABULARY) if not json_tokenizer.decode([index]).strip()]
    for token in [None, *json_tokenizer.encode("[null,null]")]:
        if token is not None:
            constraint.accept(token)
        assert not unpack_bits(constraint.mask(), SIZE)[blanks].any()


class Anything:
    """A grammar that allows every id."""

    def mask(self) -> np.ndarray:
        return pack_bits(np.ones(SIZE, bool))

    def accept(self, token: int) -> None:
        pass


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"a":1}', None),
        ('{"a":1,"b":{"a":2}}', None),
        ('{"a":1', "delimiter"),
        ('{"a":1,"a":1}', "twice"),
        ('{"a":1,"\\u0061":1}', "twice"),
        ('{"a":1e999}', "finite"),
        ('{"a":NaN}', "finite"),
        ('{"a":-Infinity}', "finite"),
        ('{"a":"x"}', "type"),
        ("[" * 100_000, "deep"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_no_end_before_the_text_is_valid(grammars, json_tokenizer, text, fault):
    validator = Validator({"type": "object", "properties": {"a": {"type": "integer"}}})
    assert (validator.fault(text.encode()) or "valid").find(fault or "valid") >= 0
    if len(text) < 50:
        written = SchemaConstraint(Anything(), grammars._token_bytes, EOS, False, validator)
        for token in json_tokenizer.encode(text):
            written.accept(token)
        assert unpack_bits(written.mask(), SIZE)[EOS] == (fault is None)


LOOP = {"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 1}}, "$ref": "#/$defs/a"}


def nested(levels: int):
    schema: dict = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


def holding_itself():
    schema: dict = {}
    schema["items"] = schema
    return schema


@pytest.mark.parametrize(
    ("schema", "error", "fault"),
    [
        # Not JSON, or too much of it.
        ("object", TypeError, "as a mapping, not str; json.loads"),
        ('{"type": "object"}', TypeError, "as a mapping, not str; json.loads"),
        (7, TypeError, "as a mapping, not int"),
        (float("nan"), TypeError, "as a mapping, not float"),
        ([], TypeError, "as a mapping, not list"),
        (dict, TypeError, "as a mapping, not type"),
        ({"minimum": float("nan")}, ValueError, "nan, which is not JSON"),
        ({"maximum": float("-inf")}, ValueError, "-inf, which is not JSON"),
        ({"enum": {1, 2}}, TypeError, "a set, which is not JSON"),
        ({"const": b"x"}, TypeError, "a bytes, which is not JSON"),
        ({"minimum": np.int64(3)}, TypeError, "a int64, which is not JSON"),
        ({1: 2}, TypeError, "a key that is not text: 1"),
        ({"properties": {None: {}}}, TypeError, "a key that is not text: None"),
        ({"const": "\ud800"}, ValueError, "surrogate"),
        ({"properties": {"\udc00": {}}}, ValueError, "surrogate"),
        (nested(5000), ValueError, "nested more than 100 levels"),
        (holding_itself(), ValueError, "nested more than 100 levels"),
        ({"enum": ["x" * 1000] * 1001}, ValueError, "too large: 1,00.,... characters"),
        ({"enum": list(range(200_001))}, ValueError, "too large: more than 200,000 values"),
        ({"properties": {f"k{i}": {} for i in range(5001)}}, ValueError, "too large: more than 5,000 mappings"),
        # Not well-formed.
        ({"type": "wat"}, ValueError, "'wat' is not valid.*at #/type"),
        ({"type": "x" * 10**5}, ValueError, "at #/type"),
        ({"properties": {"a": {"minimum": "3"}}}, ValueError, "'3' is not of type 'number'.*at #/properties/a/minimum"),
        ({"required": "a"}, ValueError, "at #/required"),
        ({"minLength": -1}, ValueError, "at #/minLength"),
        ({"$schema": "http://json-schema.org/draft-03/schema"}, ValueError, r"\$schema 'http.*draft-03.*not supported"),
        ({"$schema": 5}, ValueError, r"\$schema 5 is not supported"),
        ({"$ref": "#/x", "x": {"required": 3}}, ValueError, "at #/x/required"),
        # Keywords without a form in a grammar, wherever they stand.
        *(
            (
                {"type": "object", "properties": {"a": {"anyOf": [{keyword.strip("\\"): value}]}}},
                ValueError,
                rf"{keyword} is not",
            )
            for keyword, value in {
                "not": {},
                "if": {},
                "then": {},
                "else": {},
                "dependencies": {},
                "dependentRequired": {"a": ["b"]},
                "dependentSchemas": {},
                "propertyNames": {},
                "contains": {},
                "minContains": 1,
                "maxContains": 1,
                "uniqueItems": True,
                "unevaluatedItems": False,
                "unevaluatedProperties": False,
                r"\$dynamicRef": "#a",
                "x-guidance": {"lenient": True},
            }.items()
        ),
        ({"type": "string", "format": "regex"}, ValueError, "Unknown format: regex"),
        ({"properties": {"a": {"$id": "b"}}}, ValueError, r"\$id is supported at the root only"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, ValueError, "branches of oneOf are not told apart"),
        ({"oneOf": [{"const": 1}, {"$ref": "#/oneOf/0"}]}, ValueError, "oneOf"),
        # What OpenAI's interface and those like it take.
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}, ValueError, "the schema inside"),
        ({"name": "a", "strict": True, "schema": {"type": "object"}}, ValueError, "the schema inside"),
        # The second holds answers of the first too, closed or not.
        ({"oneOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}, "required": ["b"]}]}, ValueError, "oneOf"),
        # Numbers that floats do not tell apart.
        ({"minimum": 2**53 + 1}, ValueError, "minimum must be 0 or between"),
        ({"maximum": -(2**64)}, ValueError, "maximum must be 0 or between"),
        ({"exclusiveMaximum": 1e300}, ValueError, "exclusiveMaximum must be 0 or between"),
        ({"exclusiveMinimum": 1e-300}, ValueError, "exclusiveMinimum must be 0 or between"),
        ({"const": 2**53 + 1}, ValueError, "const holds a number"),
        ({"enum": [[{"a": 1e300}]]}, ValueError, "enum holds a number"),
        ({"const": 1 / 3}, ValueError, "const holds a number of more than 15 digits"),
        ({"multipleOf": 0.1}, ValueError, "multipleOf must be"),
        ({"multipleOf": 10**9}, ValueError, "multipleOf must be"),
        ({"type": "array", "minItems": 10**9}, ValueError, "minItems may be at most 10,000"),
        ({"type": "string", "maxLength": 2**70}, ValueError, "maxLength may be at most 1,000,000"),
        ({"const": "a\x00"}, ValueError, "const holds a control character"),
        ({"enum": [{"a": "\x7f"}]}, ValueError, "enum holds a control character"),
        # References.
        ({"$ref": "https://example.com/a.json"}, ValueError, r"\$ref 'https.*only those inside"),
        ({"$ref": "#name", "$anchor": "name"}, ValueError, r"\$ref '#name'.*only those inside"),
        ({"$ref": "#/$defs/a"}, ValueError, r"\$ref '#/\$defs/a' leads nowhere"),
        ({"$ref": "#/$defs/a/0", "$defs": {"a": {}}}, ValueError, "leads nowhere"),
        ({"$ref": "#/type", "type": "string"}, ValueError, "leads to no schema"),
        ({"$ref": "#"}, ValueError, "leads back to itself"),
        ({"allOf": [{"anyOf": [{"$ref": "#"}, {}]}]}, ValueError, "leads back to itself"),
        (
            {"$defs": {f"{i}": {"items": {"$ref": f"#/$defs/{i + 1}"}} for i in range(400)} | {"400": {}}}
            | {"$ref": "#/$defs/0"},
            ValueError,
            "more than 300 different references",
        ),
        # What no answer meets.
        (False, ValueError, "no answer can be valid"),
        ({"enum": []}, ValueError, "."),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, ValueError, "Unsatisfiable"),
        ({"type": "integer", "minimum": 0.25, "maximum": 0.75}, ValueError, "Unsatisfiable"),
        ({"type": "object", "required": ["a"], "properties": {"a": False}}, ValueError, "no answer can be valid"),
        ({"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}}}, ValueError, "ever end"),
        (LOOP, ValueError, "ever end"),
        (
            {"type": "object", "properties": {"a": {}}, "minProperties": 2},
            ValueError,
            "minProperties needs more keys than are declared",
        ),
        (
            {
                "type": "object",
                "allOf": [{"type": "object", "minProperties": 2}, {"properties": {"a": {}}, "required": ["a"]}],
            },
            ValueError,
            "without keys that are not declared",
        ),
        ({"patternProperties": {"^[ab]$": {}}}, ValueError, "patternProperties.*able to go on"),
        ({"patternProperties": {"^a": {}, "^ab": {}}}, ValueError, "disjoint"),
    ],
    ids=lambda value: ascii(value)[:40] if isinstance(value, str) else "",
)
def test_what_cannot_be_kept_is_refused_by_name(grammars, schema, error, fault):
    with pytest.raises(error, match="^setting schema .*" + fault) as caught:
        grammars.compile({"schema": schema}, False)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            r"\bx",
            r"\Bx",
            r"\p{L}",
            r"\A",
            r"\Z",
            r"\z",
            r"(a)\1",
            r"\k<a>",
            r"\cA",
            r"\0",
            r"\07",
            r"\<",
            r"\ud800",
            r"\h",
        ),
        *("(?i)a", "(?=a)", "(?!a)", "(?<=a)", "(?<n>a)", "(?P<n>a)", "(?#x)", "(?:a"),
        *(
            "[[:alpha:]]",
            "[a[b]]",
            "[a&&b]",
            "[a--b]",
            "[a~~b]",
            "[]",
            "[]a]",
            "[^]",
            "[a",
            r"[\D]",
            r"[\d-x]",
            r"[a-\d]",
        ),
        *("a**", "a*+", "*", "a{,3}", "{", "a{2", "}", "]", "a|*", "(", ")", "a$b", "a^b", "a" * 10 + "\\"),
    ],
)
def test_patterns_that_dialects_read_differently_are_refused(grammars, pattern):
    with pytest.raises(ValueError, match="^setting schema"):
        grammars.compile({"schema": {"type": "string", "pattern": pattern}}, False)


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            r"^[a-z]+@[a-z]+\.[a-z]{2,3}$",
            r"^\d{4}-\d\d$",
            r"^(?:ab|c)*$",
            "^a?b+?c*?$",
            r"^[\w.-]{2}$",
            r"^[^\w]$",
            "^.{2}$",
        ),
        *(
            r"^[^\s]\S$",
            r"^\W\D$",
            r"^\/\\\"\-\.\[\]\{\}\(\)\*\+\?\^\$\|$",
            r"^[\^\-\]\\/]$",
            "^[a^]$",
            "^[-a]$",
            "^[a-]$",
        ),
        *(
            r"^\x41\u00e9$",
            "^[\u00e0-\u00ff]$",
            "^\U0001f600$",
            "",
            "a|b",
            "^$",
            "^\\n$",
            "^a\\t$",
            "^(a|(b)){2}$",
            "^#&~<>%@!$",
        ),
    ],
)
def test_patterns_mean_what_python_means(grammars, json_tokenizer, closing, pattern):
    schema = {"type": "string", "pattern": pattern, "maxLength": 20}
    texts = answers(grammars, json_tokenizer, schema, closing, 12)
    assert texts and all(re.search(pattern, read(text)) for text in texts)
