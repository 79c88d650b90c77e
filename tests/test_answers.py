"""Answers restricted by a JSON schema or to choices, on a model whose free text is noise."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jsonschema
import numpy as np
import pytest

from jaxphoton import Moondream
from jaxphoton.models.moondream.params import abstract
from tests.beside import beside

EXAMPLE = Path(__file__).parents[1] / "examples" / "shapes" / "scene_05.png"
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tall": {"type": "boolean"},
    },
    "required": ["name", "age", "tall"],
    "additionalProperties": False,
}
SCHEMAS = [
    PERSON,
    {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 1, "maxItems": 3},
    {"anyOf": [{"const": "none"}, {"type": "integer", "minimum": -9, "maximum": 99}]},
    {"type": "string", "pattern": "^[a-c]{2,4}$"},
]
CHOICES = [["Yes", "No"], ["a cat", "a dog", 'a "quoted" one', "naïve\\ 日本"], ["one", "one more", "one more time"]]


@pytest.fixture(scope="module")
def noise(shapes):
    """The shipped model's shape with random weights."""
    random = np.random.default_rng(3)
    leaves, tree = jax.tree.flatten(abstract(shapes.config, "float32"))
    drawn = [jax.numpy.asarray(random.normal(0, 0.2, leaf.shape), leaf.dtype) for leaf in leaves]
    params = jax.tree.unflatten(tree, drawn)
    with beside(shapes, params) as model:
        yield model


def ask(model: Moondream, index: int, restriction: dict):
    settings = {"temperature": (0, 1.0)[index % 2], "seed": index, "max_tokens": 60, **restriction}
    return model.query(question=f"Question {index}?", reasoning=index % 10 == 9, settings=settings)


def test_two_hundred_answers_are_valid_whenever_they_finish(noise):
    restrictions = [{"schema": schema} for schema in SCHEMAS] + [{"choices": choices} for choices in CHOICES]
    work = [(index, restrictions[index % len(restrictions)]) for index in range(200)]
    with ThreadPoolExecutor(24) as pool:
        free = pool.submit(noise.query, None, "Free?", settings={"temperature": 0, "max_tokens": 30})
        results = list(pool.map(lambda job: ask(noise, *job), work))
    finished = 0
    for (_, restriction), result in zip(work, results, strict=True):
        if result.finish_reason != "stop":
            continue
        finished += 1
        if "schema" in restriction:
            jsonschema.validate(json.loads(result["answer"]), restriction["schema"])
        else:
            assert result["answer"] in restriction["choices"]
    assert finished >= 150
    # Free rows in the same batches are as they are alone.
    assert free.result() == noise.query(None, "Free?", settings={"temperature": 0, "max_tokens": 30})


def test_a_model_that_sees_answers_within_its_choices(shapes):
    image = EXAMPLE
    settings = {"temperature": 0, "choices": ["There are many", "3", "7"]}
    answer = shapes.query(image, "How many objects are there?", settings=settings)
    assert answer["answer"] == "3" and answer.finish_reason == "stop"
    batch = shapes.batch("query", [image], settings, question="How many objects are there?")
    assert next(batch).result == answer


@pytest.mark.parametrize("restriction", [{"schema": PERSON}, {"choices": ["There are many of them"]}], ids=str)
def test_an_answer_that_was_cut_is_said_to_be_unfinished(noise, restriction):
    settings = {"temperature": 0, "max_tokens": 3, **restriction}
    assert noise.query(question="Who?", settings=settings).finish_reason == "length"


def test_a_restricted_stream_is_the_same_text(noise):
    settings = {"temperature": 0, "schema": SCHEMAS[1]}
    whole = noise.query(question="Colours?", settings=settings)
    assert "".join(noise.query(question="Colours?", stream=True, settings=settings)["answer"]) == whole["answer"]


@pytest.mark.parametrize(
    ("settings", "error", "fault"),
    [
        ({"schema": {"type": "wat"}}, ValueError, "schema cannot be used.*wat"),
        ({"schema": "object"}, TypeError, "schema must be a JSON schema as a mapping"),
        ({"choices": "Yes"}, TypeError, "list of texts"),
        ({"choices": []}, ValueError, "one or more texts"),
        ({"choices": ["Yes", ""]}, ValueError, "none of them empty"),
        ({"choices": ["Yes"], "schema": PERSON}, ValueError, "not both"),
    ],
)
def test_a_bad_restriction_is_refused_with_its_fault(noise, settings, error, fault):
    with pytest.raises(error, match=fault):
        noise.query(question="Well?", settings=settings)


def test_other_skills_take_no_restriction(shapes):
    with pytest.raises(ValueError, match="unknown settings choices"):
        shapes.caption(EXAMPLE, settings={"choices": ["a"]})
