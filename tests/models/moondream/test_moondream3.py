"""What `Moondream` does for a family with experts that others do not: outlines, and reasoning unasked."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
from typing import cast

import numpy as np
import pytest
from PIL import Image

from jaxphoton import AsyncMoondream, Moondream
from jaxphoton.prompt.tokenizer import Tokenizer
from tests.engine import tiny
from tests.engine.test_oracle_equality_moe import CONFIG

PICTURE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
PIECES = ["M", "L", "Z", "C", "-", "0", "48", "960"]
SAMPLED = {"temperature": 1.5, "max_tokens": 40}


class Letters:
    """A tokenizer whose texts are pieces of paths."""

    def encode(self, text: str, most: int | None = None) -> list[int]:
        return [21 + ord(letter) % 50 for letter in text]

    def decode(self, ids) -> str:
        return "".join(PIECES[i % len(PIECES)] for i in ids if self.is_text(i))

    def is_text(self, token_id: int) -> bool:
        return token_id > 20


@pytest.fixture(scope="module")
def model():
    engine = dataclasses.replace(
        tiny.ENGINE, prefill_rows=(1,), prefill_lengths=(16,), vision=((1, 4),), host_masks=False, image_workers=0
    )
    with Moondream(tiny.drawn(CONFIG), CONFIG, cast(Tokenizer, Letters()), engine=engine) as model:
        yield model


@pytest.mark.parametrize("seed", range(6))
def test_an_outline_is_the_same_streamed_and_not(model, seed):
    settings = {**SAMPLED, "seed": seed}
    whole = model.segment(PICTURE, "cat", settings=settings)
    events = list(model.segment(PICTURE, "cat", stream=True, settings=settings))
    assert set(whole) <= {"path", "bbox", "parse_error"} and {"path", "bbox"} <= set(whole)
    assert events[-1] == {**whole, "completed": True}
    assert events[-1].finish_reason == whole.finish_reason and events[-1].tokens == whole.tokens
    assert "".join(event["chunk"] for event in events[:-1] if "chunk" in event) == whole["path"]
    assert [event["bbox"] for event in events[:-1] if "bbox" in event] == [b for b in [whole["bbox"]] if b]

    async def streamed():
        asynchronous = AsyncMoondream(model)
        assert await asynchronous.segment(PICTURE, "cat", settings=settings) == whole
        return [event async for event in asynchronous.stream_segment(PICTURE, "cat", settings=settings)]

    assert asyncio.run(streamed()) == events


def test_a_box_is_told_as_soon_as_it_is_known(model):
    for seed in range(50):
        events = list(model.segment(PICTURE, "cat", stream=True, settings={**SAMPLED, "seed": seed}))
        if "bbox" in events[0]:
            return
    pytest.fail("no seed gave a box")


def test_outlines_of_many_images_and_hints(model):
    items = list(model.batch("segment", [PICTURE, PICTURE[:10]], settings=SAMPLED, object="cat"))
    assert sorted(item.key for item in items) == [0, 1] and all("path" in item.result for item in items)
    hinted = model.segment(PICTURE, "cat", spatial_refs=[(0.5, 0.5)], settings={**SAMPLED, "seed": 1})
    assert hinted.logprob != model.segment(PICTURE, "cat", settings={**SAMPLED, "seed": 1}).logprob


def test_what_cannot_be_outlined(model, shapes):
    with pytest.raises(ValueError, match="segment needs an image"):
        model.segment(None, "cat")
    with pytest.raises(ValueError, match="one image"):
        model.segment([PICTURE], "cat", stream=True)
    with pytest.raises(ValueError, match="no prompt for 'segment'"):
        shapes.segment(PICTURE, "cat")


def test_the_family_reasons_unless_it_is_told_not_to(model, shapes):
    settings = {"max_tokens": 6, "temperature": 0}
    assert set(model.query(PICTURE, "why?", settings=settings)) == {"answer", "reasoning"}
    assert set(model.query(PICTURE, "why?", reasoning=False, settings=settings)) == {"answer"}
    assert set(shapes.query(PICTURE, "why?", settings=settings)) == {"answer"}


def test_an_outline_and_thoughts_over_http(model):
    moondream = pytest.importorskip("moondream", reason="NO MOONDREAM CLIENT: outlines over HTTP are NOT tested")
    served = pytest.importorskip("tests.server.serving").served
    from jaxphoton.server.backend import LocalBackend
    from jaxphoton.server.service import Service

    service = Service(LocalBackend(model), ["small"])
    service.start()
    photo = io.BytesIO()
    Image.fromarray(PICTURE).save(photo, "PNG")
    # The client makes a JPEG of a picture, but passes on what is encoded.
    picture = moondream.types.Base64EncodedImage(
        image_url=f"data:image/png;base64,{base64.b64encode(photo.getvalue()).decode()}"
    )
    drawn = ({**SAMPLED, "seed": seed} for seed in range(50))
    settings = next(each for each in drawn if model.segment(PICTURE, "cat", settings=each)["path"])
    whole, answer = model.segment(PICTURE, "cat", settings=settings), model.query(PICTURE, "why?", settings=settings)
    with served(service) as address:
        client = moondream.vl(endpoint=f"{address}/v1")
        told = client.segment(picture, "cat", settings=settings)
        events = list(client.segment(picture, "cat", stream=True, settings=settings))
        thought = client.query(picture, "why?", reasoning=True, settings=settings)
    assert told["path"] == whole["path"] and told.get("bbox") == (whole["bbox"] or None)
    assert "".join(event["chunk"] for event in events if "chunk" in event) == whole["path"] == events[-1]["path"]
    assert thought["answer"] == answer["answer"] and thought["reasoning"]["text"] == answer["reasoning"]["text"]
