"""`Moondream` on the shipped model: shapes of results, streams, batches, and what is refused."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import jaxphoton
from jaxphoton import ImageError, Moondream
from jaxphoton.models.moondream import grammars as registry
from jaxphoton.models.moondream import prompts as templates
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.oracle.oracle import Oracle, OracleRequest
from jaxphoton.requests.ask import Ask, Job
from jaxphoton.requests.errors import UnknownAdapter
from jaxphoton.requests.settings import Settings

EXAMPLES = Path(__file__).parents[1] / "examples" / "shapes"
PICTURES = sorted(p for p in EXAMPLES.iterdir() if p.suffix in (".png", ".jpg", ".jpeg"))
GREEDY = {"temperature": 0}
QUESTION = "How many objects are there?"


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.asarray(Image.open(PICTURES[0]).convert("RGB"))


def test_results_have_the_client_s_shape(shapes, picture):
    assert set(shapes.caption(picture)) == {"caption"}
    assert set(shapes.query(picture, QUESTION)) == {"answer"}
    assert set(shapes.query(picture, QUESTION, reasoning=True, settings={"max_tokens": 8})) == {"answer", "reasoning"}
    objects = shapes.detect(picture, "object")["objects"]
    assert objects and all(set(box) == {"x_min", "y_min", "x_max", "y_max"} for box in objects)
    points = shapes.point(picture, "object")["points"]
    assert points and all(set(point) == {"x", "y"} and 0 <= point["x"] <= 1 for point in points)
    json.dumps([objects, points])


def test_the_engine_answers_like_the_oracle(shapes, picture):
    oracle = Oracle(shapes.params, MoondreamFamily(shapes.config))
    config, encode = shapes.config.tokenizer, shapes.tokenizer.encode
    image = oracle.encode_image(shapes.encode_image(picture).image.crops)
    asked = {
        "text": (templates.caption_prompt(config, "normal"), shapes.caption(picture, settings=GREEDY)),
        "detect": (templates.detect_prompt(config, encode, "object"), shapes.detect(picture, "object")),
        "point": (templates.point_prompt(config, encode, "object"), shapes.point(picture, "object")),
    }
    for grammar, (prompt, result) in asked.items():
        settings = Settings(temperature=0.0, max_tokens=200, seed=0)
        truth = oracle.run(OracleRequest(prompt, registry.grammars(config)[grammar], settings, image))
        assert tuple(token.id for token in truth.tokens) == result.tokens
        assert result.logprob == pytest.approx(sum(token.logprob for token in truth.tokens), abs=1e-3)


def test_fifty_mixed_requests_at_once_answer_as_one_by_one(shapes):
    images = [np.asarray(Image.open(p).convert("RGB")) for p in PICTURES[:5]]
    calls = [
        lambda image: shapes.caption(image, settings=GREEDY),
        lambda image: shapes.caption(image, "short", settings={"temperature": 0.8, "seed": 7}),
        lambda image: shapes.query(image, QUESTION, settings=GREEDY),
        lambda image: shapes.detect(image, "object"),
        lambda image: shapes.point(image, "star"),
    ]
    work = [(call, image) for image in images for call in calls for _ in range(2)]
    alone = [call(image) for call, image in work]
    with ThreadPoolExecutor(len(work)) as pool:
        together = list(pool.map(lambda job: job[0](job[1]), work))
    assert [r.tokens for r in together] == [r.tokens for r in alone]


@pytest.mark.parametrize("kind", ["path", "text path", "bytes", "file", "pil", "array", "encoded"])
def test_an_image_may_come_in_many_forms(shapes, picture, kind):
    path = PICTURES[0]
    image = {
        "path": lambda: path,
        "text path": lambda: str(path),
        "bytes": path.read_bytes,
        "file": lambda: io.BytesIO(path.read_bytes()),
        "pil": lambda: Image.open(path),
        "array": lambda: picture,
        "encoded": lambda: shapes.encode_image(path),
    }[kind]()
    assert shapes.caption(image, settings=GREEDY) == shapes.caption(picture, settings=GREEDY)


def test_a_list_of_images_gives_a_list_of_results(shapes):
    results = shapes.caption(PICTURES[:3], settings=GREEDY)
    assert results == [shapes.caption(path, settings=GREEDY) for path in PICTURES[:3]]
    with pytest.raises(ImageError, match="nowhere.png"):
        shapes.caption([PICTURES[0], "nowhere.png"])


def test_a_batch_yields_every_key_once_and_errors_as_items(shapes):
    items = [*PICTURES[:4], "nowhere.png", ("mine", PICTURES[4])]
    batch = {item.key: item for item in shapes.caption_batch(iter(items), settings=GREEDY)}
    assert set(batch) == {0, 1, 2, 3, 4, "mine"}
    assert isinstance(batch[4].error, ImageError) and batch[4].result is None
    assert batch["mine"].result == shapes.caption(PICTURES[4], settings=GREEDY)


def test_one_broken_image_of_fifty_costs_itself_alone(shapes):
    images: list[Any] = [PICTURES[i % len(PICTURES)] for i in range(50)]
    images[7] = b"not a picture"
    truth = {path: shapes.caption(path, "short", settings=GREEDY) for path in set(images) - {images[7]}}
    batch = {item.key: item for item in shapes.caption_batch(images, "short", settings=GREEDY)}
    assert set(batch) == set(range(50)) and isinstance(batch[7].error, ImageError)
    assert all(batch[i].result == truth[path] for i, path in enumerate(images) if i != 7)


def test_the_settings_of_the_engine_are_an_engine_config(shapes):
    with pytest.raises(TypeError, match="must be an EngineConfig, not dict"):
        Moondream(shapes.params, shapes.config, shapes.tokenizer, engine={"max_rows": 2})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "task, arguments, fault",
    [
        ("detect", {"obj": "car"}, "detect has no argument 'obj'; it takes object"),
        ("detect", {}, "detect needs object="),
        (
            "point",
            {"object": "car", "length": "short"},
            "point has no argument 'length'; it takes object, spatial_refs",
        ),
        ("query", {"quesion": "x"}, "query has no argument 'quesion'; it takes question, reasoning, spatial_refs"),
        ("query", {}, "query needs question="),
        ("caption", {"settings": {}}, "caption has no argument 'settings'; it takes length, type, extra, name"),
    ],
)
def test_what_a_task_takes_is_told_in_its_own_words(shapes, task, arguments, fault):
    with pytest.raises(TypeError) as caught:
        shapes.submit(PICTURES[0], Ask(task, arguments))
    assert str(caught.value) == fault
    (answer,) = shapes.answer([Job("a", PICTURES[0], (Ask(task, arguments),))])
    assert str(answer.error) == fault


def test_what_is_wrong_with_a_call_is_told_in_the_words_of_the_caller(shapes):
    with pytest.raises(TypeError, match=r"^Model.caption\(\) got an unexpected keyword argument 'lenght'"):
        shapes.caption(PICTURES[0], lenght="short")
    with pytest.raises(TypeError, match="must be an Ask, not str"):
        shapes.submit(PICTURES[0], "caption")
    with pytest.raises(TypeError, match="an observer of launches must be a function, not int"):
        shapes.observe(launches=3)


def test_a_batch_reads_its_input_a_bounded_way_ahead(shapes):
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield PICTURES[read % len(PICTURES)]

    batch = shapes.caption_batch(endless(), "short", settings=GREEDY)
    for _ in range(3):
        next(batch)
    assert read <= 3 + 2 * shapes.engine_config.max_rows
    batch.close()


def test_asks_about_one_image_share_its_encoding(shapes):
    launches = []
    asks = (Ask("caption", {"length": "short"}, GREEDY), Ask("detect", {"object": "fish"}), Ask("caption", {}, GREEDY))
    shapes.engine.drain()
    shapes.caption(PICTURES[0], settings={"max_tokens": 1})
    with shapes.observe(launches=launches.append):
        rotated = [np.asarray(Image.open(path).convert("RGB"))[::-1].copy() for path in PICTURES[:4]]
        jobs = (Job(number, image, asks) for number, image in enumerate(rotated))
        answers = {answer.key: answer for answer in shapes.answer(jobs)}
        shapes.engine.drain()
    assert sum(launch.images for launch in launches) == 4
    for number, image in enumerate(rotated):
        short, boxes, normal = answers[number].results
        assert short == shapes.caption(image, "short", settings=GREEDY) and boxes == shapes.detect(image, "fish")
        assert normal == shapes.caption(image, settings=GREEDY)
        assert answers[number].size == image.shape[:2]


def test_an_ask_that_is_wrong_is_the_error_of_its_job(shapes, picture):
    jobs = [
        Job("bad", picture, (Ask("caption"), Ask("detect", {"object": " "}))),
        Job("good", picture, (Ask("caption"),)),
    ]
    answers = {answer.key: answer for answer in shapes.answer(jobs)}
    assert "object must not be empty" in str(answers["bad"].error) and answers["good"].results
    assert shapes.engine.drain(timeout=60)


def test_a_stream_is_the_text_in_pieces(shapes, picture):
    whole = shapes.caption(picture, settings=GREEDY)
    stream = shapes.caption(picture, stream=True, settings=GREEDY)
    assert stream.finish_reason is None
    pieces = list(stream["caption"])
    assert len(pieces) > 3 and "".join(pieces) == whole["caption"]
    assert (stream.finish_reason, stream.tokens) == (whole.finish_reason, whole.tokens)


def test_a_streamed_answer_comes_after_its_reasoning(shapes, picture):
    settings = {"temperature": 0, "max_tokens": 12}
    whole = shapes.query(picture, QUESTION, reasoning=True, settings=settings)
    stream = shapes.query(picture, QUESTION, reasoning=True, stream=True, settings=settings)
    assert stream["reasoning"] == whole["reasoning"]
    assert "".join(stream["answer"]) == whole["answer"]


def test_a_stream_that_is_closed_gives_its_request_up(shapes, picture):
    stream = shapes.caption(picture, stream=True)["caption"]
    next(stream)
    stream.close()
    assert shapes.engine.drain(timeout=60)


def test_seeds_reproduce_and_are_returned(shapes, picture):
    warm = {"temperature": 30.0, "top_p": 1.0, "max_tokens": 20}
    first = shapes.caption(picture, settings=warm)
    again = shapes.caption(picture, settings={**warm, "seed": first.seed})
    other = shapes.caption(picture, settings={**warm, "seed": (first.seed + 1) % 2**32})
    assert first.tokens == again.tokens != other.tokens


def test_limits_end_with_length(shapes, picture):
    cut = shapes.caption(picture, settings={"max_tokens": 3})
    assert cut.finish_reason == "length" and len(cut.tokens) == 3
    one = shapes.detect(picture, "object", settings={"max_objects": 1})
    assert len(one["objects"]) == 1


def test_a_question_without_an_image_and_one_about_a_region(shapes, picture):
    assert "answer" in shapes.query(question="What?", settings={"max_tokens": 4})
    assert "answer" in shapes.query(picture, "What?", spatial_refs=[(0.5, 0.5), (0.1, 0.1, 0.4, 0.4)])


@pytest.mark.parametrize(
    ("call", "error", "fault"),
    [
        (lambda m, i: m.caption(i, "tiny"), ValueError, "length must be one of"),
        (lambda m, i: m.caption(None), ValueError, "caption needs an image"),
        (lambda m, i: m.caption(i, settings={"beams": 4}), ValueError, "unknown settings beams; allowed are"),
        (lambda m, i: m.caption(i, adapter="x"), UnknownAdapter, "there is no adapter 'x' here; there are none"),
        (
            lambda m, i: m.caption(i, settings={"variant": 5}),
            TypeError,
            "setting variant must be the name of an adapter",
        ),
        (lambda m, i: m.caption(3.5), TypeError, "float"),
        (lambda m, i: m.query(i, "  "), ValueError, "question must not be empty"),
        (lambda m, i: m.query(i), TypeError, "question must be a string"),
        (lambda m, i: m.query(None, "Where?", spatial_refs=[(0.5, 0.5)]), ValueError, "need an image"),
        (lambda m, i: m.query(i, "Where?", spatial_refs=[(0.5, 1.5)]), ValueError, "from 0 to 1"),
        (lambda m, i: m.query(i, "long " * 600), ValueError, "positions"),
        (lambda m, i: m.detect(i, ""), ValueError, "object must not be empty"),
        (lambda m, i: m.point(i, 7), TypeError, "object must be a string"),
        (lambda m, i: m.chat([]), ValueError, "messages must not be empty"),
    ],
)
def test_what_is_refused_says_why(shapes, picture, call, error, fault):
    with pytest.raises(error, match=fault):
        call(shapes, picture)


def test_coordinate_convention_and_clamping_are_options(shapes, picture):
    options = {"coordinates": "bins-1", "clamp_boxes": True, "engine": shapes.engine_config}
    with Moondream.from_pretrained("shapes", **options) as photon:
        assert photon.config.region.coord_divisor == "bins-1"
    with pytest.raises(ValueError, match="coord_divisor"):
        Moondream.from_pretrained("shapes", coordinates="pixels")


@pytest.mark.parametrize(
    ("options", "fault"),
    [({"dtype": "int8"}, "dtype must be one of"), ({"device": "abacus"}, "no device 'abacus'; there are")],
)
def test_loading_names_what_is_wrong(options, fault):
    with pytest.raises(ValueError, match=fault):
        Moondream.from_pretrained("shapes", **options)


def test_an_unknown_model_is_named():
    with pytest.raises(jaxphoton.WeightsError, match="no/such/place"):
        Moondream.from_pretrained("no/such/place")


def test_a_closed_model_says_so(picture):
    model = Moondream.from_pretrained("shapes")
    model.close()
    with pytest.raises(RuntimeError, match="closed"):
        model.caption(picture)
