"""Schemas of every kind that is supported, with the ways in which they are known to be combined."""

from __future__ import annotations

from typing import Any

INT, TEXT = {"type": "integer"}, {"type": "string", "maxLength": 4}
A, B = {"properties": {"a": INT}, "required": ["a"]}, {"properties": {"b": TEXT, "a0": INT}, "required": ["b"]}
OBJECT = {"type": "object"}

SCHEMAS: dict[str, Any] = {
    "anything": True,
    "nothing said": {"title": "x", "description": "y"},
    "null": {"type": "null"},
    "boolean": {"type": "boolean"},
    "integer": INT,
    "number": {"type": "number"},
    "string": {"type": "string"},
    "array": {"type": "array"},
    "object": OBJECT,
    "several types": {"type": ["integer", "null", "object"], "minimum": 3, "properties": {"a": INT}},
    # Numbers.
    "range": {"type": "integer", "minimum": -5, "maximum": 120},
    "exclusive": {"type": "number", "exclusiveMinimum": 0.5, "exclusiveMaximum": 1},
    "above zero": {"type": "number", "exclusiveMinimum": 0},
    "below zero": {"type": "number", "exclusiveMaximum": 0, "minimum": -1},
    "exclusive integers": {"type": "integer", "exclusiveMinimum": -1, "exclusiveMaximum": 3},
    "open above": {"type": "number", "minimum": 0.1},
    "open below": {"type": "integer", "maximum": -17},
    "large": {"type": "integer", "minimum": 2**53 - 3, "maximum": 2**53},
    "tenth": {"type": "number", "minimum": 0.1, "maximum": 0.3},
    "multiple": {"type": "integer", "multipleOf": 7, "minimum": -50, "maximum": 50},
    "multiple without bounds": {"type": "number", "multipleOf": 3},
    "eighths": {"type": "number", "multipleOf": 0.125, "minimum": 0, "maximum": 9},
    "untyped bounds": {"minimum": 3, "maxLength": 2, "maxItems": 1, "maxProperties": 1},
    "draft 4": {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "type": "number",
        "minimum": 3,
        "anyOf": [{"maximum": 5}],
        "exclusiveMinimum": True,
    },
    # Texts.
    "lengths": {"type": "string", "minLength": 2, "maxLength": 5},
    "pattern": {"type": "string", "pattern": r"^[A-Z]{2}-\d{1,3}$"},
    "search": {"type": "string", "pattern": "ab|^c", "maxLength": 6},
    "classes": {"type": "string", "pattern": r"^\W\D\S.[^\w][^\s\d]\s$"},
    "date": {"type": "string", "format": "date"},
    "uuid": {"type": "string", "format": "uuid"},
    # Constants.
    "enum": {
        "enum": ["red", "gr\u00fcn", "\u65e5\u672c", 'a"b\\c\n', 1, 1.5, -0.25, True, None, [1, "x"], {"b": 1, "a": 2}]
    },
    "const": {"const": {"a": [1, {"b": None}], "": "x"}},
    "const 1.0": {"const": 1.0},
    "typed enum": {"type": "string", "enum": ["a", "ab", "abc", 5]},
    # Arrays.
    "counted": {"type": "array", "items": INT, "minItems": 2, "maxItems": 4},
    "tuple": {"type": "array", "prefixItems": [INT, TEXT], "items": False},
    "open tuple": {"type": "array", "prefixItems": [INT, A], "items": {"type": "null"}, "minItems": 1},
    "draft 7 tuple": {
        "$schema": "http://json-schema.org/draft-07/schema",
        "type": "array",
        "items": [INT, TEXT],
        "additionalItems": False,
        "minItems": 2,
    },
    "not unique": {"type": "array", "items": {"type": "boolean"}, "uniqueItems": False},
    # Objects.
    "declared": {**OBJECT, "properties": {"a": INT, "b": TEXT}},
    "declared and required": {**OBJECT, "properties": {"b": TEXT, "a": INT}, "required": ["a", "z"]},
    "closed": {**OBJECT, **A, "additionalProperties": False},
    "open": {**OBJECT, **A, "additionalProperties": True},
    "typed rest": {**OBJECT, "properties": {"a": INT, "b": INT}, "additionalProperties": {"type": "boolean"}},
    "map": {**OBJECT, "additionalProperties": INT},
    "map with a least size": {**OBJECT, "additionalProperties": INT, "minProperties": 3, "maxProperties": 4},
    "one of its keys": {**OBJECT, "properties": {"a": INT, "b": INT}, "minProperties": 1},
    "patterns": {**OBJECT, "patternProperties": {"^a": INT, "^[b-d]+$": TEXT}},
    "patterns and a least size": {**OBJECT, "patternProperties": {"^[ab]+$": INT}, "minProperties": 2},
    "patterns and the rest": {**OBJECT, "patternProperties": {"^a": INT}, "additionalProperties": {"type": "null"}},
    "patterns beside keys": {**OBJECT, "properties": {"ab": {"minimum": 3}}, "patternProperties": {"^a": INT}},
    "odd keys": {**OBJECT, "properties": {'"': INT, "\\": INT, "\n": INT, "\x01\x7f": INT, "\u65e5": INT, "": INT}},
    "only required": {**OBJECT, "required": ["x", "y"]},
    "untyped": {"properties": {"a": INT, "b": TEXT}, "required": ["a"]},
    "never b": {**OBJECT, "properties": {"a": INT, "b": False}},
    # Combined.
    "any of": {"anyOf": [A, B, {"type": "null"}]},
    "any of, common keys": {**OBJECT, "properties": {"id": INT}, "anyOf": [A, B], "required": ["id"]},
    "any of required": {
        **OBJECT,
        "properties": {"a": INT, "b": TEXT},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    "all of": {"type": "object", "allOf": [A, B]},
    "all of, one closed": {"allOf": [A, {"properties": {"a": {}, "b": TEXT}, "additionalProperties": False}]},
    "all of any of": {
        **OBJECT,
        "allOf": [{"anyOf": [A, B]}, {"anyOf": [{"properties": {"c": INT}}, {"properties": {"d": INT}}]}],
    },
    "all of, one open": {
        **OBJECT,
        "allOf": [A, {"properties": {"b": TEXT}, "additionalProperties": {"type": ["integer", "string"]}}],
    },
    "one of by a constant": {
        "oneOf": [
            {**OBJECT, "properties": {"kind": {"const": "cat"}, "lives": INT}, "required": ["kind", "lives"]},
            {**OBJECT, "properties": {"kind": {"const": "dog"}, "name": TEXT}, "required": ["kind"]},
        ]
    },
    "one of by a constant behind references": {
        "$defs": {
            "cat": {**OBJECT, "properties": {"kind": {"$ref": "#/$defs/kind"}, "of": INT}, "required": ["kind"]},
            "kind": {"enum": ["cat", "tiger"]},
            "dog": {
                "allOf": [
                    {"required": ["kind"], "properties": {"kind": {"const": "dog"}}},
                    {
                        **OBJECT,
                        "properties": {
                            "kind": True,
                            "friend": {"oneOf": [{"$ref": "#/$defs/dog"}, {"$ref": "#/$defs/cat"}]},
                        },
                    },
                ]
            },
        },
        "oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}, {"type": "null"}],
    },
    "one of and any of": {
        **OBJECT,
        "properties": {"kind": {"enum": ["a", "b"]}, "x": INT},
        "required": ["kind", "x"],
        "$defs": {
            "a": {**OBJECT, "properties": {"kind": {"const": "a"}}, "required": ["kind"]},
            "b": {**OBJECT, "properties": {"kind": {"const": "b"}}, "required": ["kind"]},
        },
        "oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
        "anyOf": [{"properties": {"x": {"const": 1}}}, {"properties": {"x": {"const": 2}}}],
    },
    "one of by type": {"oneOf": [INT, TEXT, {"type": "array", "items": INT}]},
    "a reference": {
        **OBJECT,
        "properties": {"x": {"$ref": "#/$defs/p"}, "y": {"$ref": "#/$defs/p"}},
        "$defs": {"p": A},
    },
    "a reference with more": {"$ref": "#/definitions/a~1b", "properties": {"c": INT}, "definitions": {"a/b": A}},
    "inheritance": {
        "$defs": {"base": A},
        "allOf": [{"$ref": "#/$defs/base"}],
        "properties": {"b": TEXT},
        "required": ["b"],
    },
    "a tree": {
        "$defs": {"node": {**OBJECT, "properties": {"v": INT, "next": {"$ref": "#/$defs/node"}}, "required": ["v"]}},
        "$ref": "#/$defs/node",
    },
    "a list of itself": {**OBJECT, "properties": {"c": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2}}},
    "or nothing": {**OBJECT, "properties": {"c": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["c"]},
    "a dead branch": {
        "$defs": {"loop": {**OBJECT, "properties": {"a": {"$ref": "#/$defs/loop"}}, "required": ["a"]}},
        "anyOf": [{"$ref": "#/$defs/loop"}, INT],
    },
    "nested": {
        **OBJECT,
        "properties": {
            "cars": {
                "type": "array",
                "items": {
                    **OBJECT,
                    "properties": {
                        "colour": {"enum": ["red", "blue"]},
                        "n": {"type": "number", "minimum": 0, "maximum": 1},
                    },
                    "required": ["colour"],
                },
                "maxItems": 3,
            }
        },
        "required": ["cars"],
    },
}
