"""Conversations: asked in process and for asyncio, streamed, restricted, and as the oracle answers them."""

from __future__ import annotations

import asyncio
import base64
import io
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxphoton import Ask, AsyncMoondream, DeadlineExceeded, ImageError, Job, Moondream, SeveralImages
from jaxphoton.config import EngineConfig
from jaxphoton.models.moondream.prompts import chat_prompt
from jaxphoton.oracle.oracle import Oracle, OracleRequest
from jaxphoton.requests.conversation import turns_of
from jaxphoton.requests.settings import Settings
from jaxphoton.weights.load import load_model

PATIENCE = 300.0  # seconds after which a test fails; none waits so long
PICTURE = Path(__file__).parents[1] / "examples" / "shapes" / "scene_05.png"
GREEDY = {"temperature": 0, "max_tokens": 24}
QUESTION = "How many objects are there?"


def user(text: str, picture: Any = None) -> dict[str, Any]:
    parts = [] if picture is None else [{"type": "image_url", "image_url": {"url": picture}}]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def address() -> str:
    return f"data:image/png;base64,{base64.b64encode(PICTURE.read_bytes()).decode()}"


@pytest.mark.parametrize("reasoning", [None, False, True])
def test_one_turn_is_a_question(shapes, reasoning):
    wanted = shapes.query(PICTURE, QUESTION, reasoning, settings=GREEDY)
    for picture in (PICTURE, address(), Image.open(PICTURE), PICTURE.read_bytes(), shapes.encode_image(PICTURE)):
        result = shapes.chat([user(QUESTION, picture)], settings=GREEDY, reasoning=reasoning)
        assert result.tokens == wanted.tokens and result.logprob == wanted.logprob
        assert result["message"]["role"] == "assistant" and result["message"]["content"] == wanted["answer"]
        assert result["finish_reason"] == result.finish_reason == wanted.finish_reason
        assert ("reasoning" in result["message"]) == ("reasoning" in wanted) == bool(reasoning)
    drawn = shapes.chat([user(QUESTION, PICTURE)], settings={"temperature": 1.5, "seed": 7, "max_tokens": 9})
    assert (
        drawn.tokens
        == shapes.query(PICTURE, QUESTION, settings={"temperature": 1.5, "seed": 7, "max_tokens": 9}).tokens
    )


def test_a_turn_about_the_same_picture_does_not_encode_it_again(shapes):
    pixels = np.asarray(Image.open(PICTURE).convert("RGB"))[:, ::-1].copy()
    messages = [{"role": "system", "content": "Be brief."}, user(QUESTION, pixels)]
    launches = []
    with shapes.observe(launches=launches.append):
        first = shapes.chat(messages, settings=GREEDY)
        shapes.engine.drain()
        assert sum(launch.images for launch in launches) == 1
        again = io.BytesIO()
        Image.fromarray(pixels).save(again, "png")
        messages = [messages[0], user(QUESTION, again.getvalue()), first["message"], user("And on the left?")]
        second = shapes.chat(messages, settings=GREEDY)
        shapes.engine.drain()
    assert sum(launch.images for launch in launches) == 1, "it was encoded again"
    assert second.metrics.cached_tokens > 0 and second.metrics.input_tokens > first.metrics.input_tokens


def test_what_was_said_before_changes_the_answer(shapes):
    asked = [shapes.chat(turns, settings={**GREEDY, "temperature": 0}).logprob for turns in (
        [user("Name one thing.", PICTURE)],
        [user(QUESTION, PICTURE), assistant("3"), user("Name one thing.")],
        [user(QUESTION, PICTURE), assistant("4"), user("Name one thing.")],
        [{"role": "system", "content": "Count."}, user("Name one thing.", PICTURE)],
        [user("Name one thing.")],
    )]  # fmt: skip
    assert len(set(asked)) == len(asked)


@pytest.mark.parametrize("reasoning", [False, True])
def test_a_stream_is_the_message_in_pieces(shapes, reasoning):
    messages = [user(QUESTION, PICTURE), assistant("3"), user("Which colours?")]
    whole = shapes.chat(messages, settings={**GREEDY, "max_tokens": 40}, reasoning=reasoning)
    stream = shapes.chat(messages, stream=True, settings={**GREEDY, "max_tokens": 40}, reasoning=reasoning)
    if reasoning:
        assert stream["reasoning"]["text"] == whole["message"]["reasoning"]
    assert "".join(stream["message"]) == whole["message"]["content"]
    assert stream.tokens == whole.tokens and stream.finish_reason == whole["finish_reason"]
    events = []
    pending = shapes.submit(PICTURE, Ask("chat", arguments(messages, reasoning), GREEDY), events.append)
    said = pending.future.result(PATIENCE)["message"]
    assert ["reasoning" in event for event in events[:1]] == [reasoning]
    assert "".join(event["chunk"] for event in events if "chunk" in event) == said["content"]


def arguments(messages: list[Any], reasoning: bool | None = None) -> dict[str, Any]:
    """Of the skill: texts alone."""
    texts = [{"role": turn.role, "content": turn.text} for turn in turns_of(messages)]
    return {"messages": texts, "reasoning": reasoning}


def test_pictures_in_any_turn(shapes):
    """As a client sends them that tells the whole conversation again, its pictures included."""
    images = [np.asarray(Image.open(PICTURE).convert("RGB").rotate(37 * number + 9)) for number in range(3)]
    messages = [user(QUESTION, images[0])]
    launches, answers = [], []
    with shapes.observe(launches=launches.append):
        for number, more in enumerate(([user("And here?", images[1])], [user("Which has a car?", images[2])], [])):
            shapes.engine.drain(PATIENCE)
            launches.clear()
            answers.append(shapes.chat(messages, settings=GREEDY))
            shapes.engine.drain(PATIENCE)
            # The picture in front is found again, those behind it are not kept.
            assert sum(launch.images for launch in launches) == max(1, number)
            assert answers[-1].metrics.cached_tokens == (65 if number else 0)
            messages += [answers[-1]["message"], *more]
    lengths = [answer.metrics.input_tokens for answer in answers]
    assert lengths[1] - lengths[0] > 64 and lengths[2] - lengths[1] > 64
    first, second = (shapes.chat([*messages[:2], user("Which?", image)], settings=GREEDY) for image in images[1:])
    assert first.logprob != second.logprob, "a later picture changes nothing"


def test_several_pictures_go_every_way(shapes):
    wanted = shapes.chat(messages := [user(QUESTION, PICTURE), user("And now?", address())], settings=GREEDY)
    place = {"type": "image"}
    told = {"messages": [user(QUESTION), user("And now?")]}
    for message in told["messages"]:
        message["content"].insert(0, place)
    both, ask = SeveralImages((PICTURE, PICTURE.read_bytes())), Ask("chat", told, GREEDY)
    assert shapes.submit(both, ask).future.result(PATIENCE).tokens == wanted.tokens
    (answer,) = shapes.answer([Job("a", both, (ask,))])
    assert answer.results == (wanted,) and answer.size == shapes.encode_image(PICTURE).size
    stream = shapes.chat(messages, stream=True, settings=GREEDY)
    assert "".join(stream["message"]) == wanted["message"]["content"] and stream.tokens == wanted.tokens

    async def main():
        async with asyncio.timeout(PATIENCE):
            assert (await AsyncMoondream(shapes).chat(messages, settings=GREEDY)).tokens == wanted.tokens

    asyncio.run(main())
    with pytest.raises(ImageError, match="picture 2 of 2"):
        shapes.chat([user(QUESTION, PICTURE), user("And now?", b"no picture")], settings=GREEDY)
    (answer,) = shapes.answer([Job("a", SeveralImages((PICTURE, b"no picture")), (ask,))])
    assert isinstance(answer.error, ImageError) and "picture 2 of 2" in answer.error.fault
    for image, fault in ((PICTURE, "places for 2 pictures, and 1 came"), (None, "and 0 came")):
        with pytest.raises(ValueError, match=fault):
            shapes.submit(image, ask)
    with pytest.raises(ValueError, match="caption has places for 1 picture, and 2 came"):
        shapes.submit(both, Ask("caption"))


def test_a_message_can_be_restricted_as_an_answer(shapes):
    messages = [user(QUESTION, PICTURE), assistant("3"), user("Sure?")]
    said = shapes.chat(messages, settings={**GREEDY, "choices": ["yes, I am", "not quite"]})
    assert said["message"]["content"] in ("yes, I am", "not quite") and said["finish_reason"] == "stop"
    said = shapes.chat(messages, settings={**GREEDY, "schema": {"type": "boolean"}}, reasoning=True)
    assert said["finish_reason"] == "length" or said["message"]["content"] in ("true", "false")


def test_jobs_and_batches_take_conversations(shapes):
    messages = [user(QUESTION), assistant("3"), user("Sure?")]
    wanted = shapes.chat([user(QUESTION, PICTURE), *messages[1:]], settings=GREEDY)
    (item,) = shapes.batch("chat", [PICTURE], GREEDY, **arguments(messages))
    assert item.result == wanted and item.result.tokens == wanted.tokens
    ask = Ask("chat", arguments(messages), GREEDY)
    (answer,) = shapes.answer([Job("a", PICTURE, (ask, Ask("caption", {}, GREEDY)))])
    assert answer.results == (wanted, shapes.caption(PICTURE, settings=GREEDY))


@pytest.mark.parametrize(
    ("call", "error", "fault"),
    [
        (lambda m: m.chat([]), ValueError, "messages must not be empty"),
        (lambda m: m.chat([user(" ")]), ValueError, r"messages\[0\]: the last message has neither text nor picture"),
        (lambda m: m.chat([user("a", b"")] * 17), ValueError, "17 pictures; a conversation can have 16"),
        (lambda m: m.chat([user("a", b"")] * 8), ValueError, "8 pictures of 64 positions .* context holds 512"),
        (lambda m: m.chat([user("a"), {"role": "user", "content": [{"type": "image"}]}]), ValueError, "has no picture"),
        (lambda m: m.chat([user("a", str(PICTURE))]), ValueError, "must be a data address"),
        (lambda m: m.chat([user("a", b"no picture")]), ImageError, "image"),
        (lambda m: m.chat([user("a", "data:image/png;base64,~")]), ImageError, "<data address>.* is not base64"),
        (lambda m: m.chat([user("a", "data:image/png;base64")]), ImageError, "<data address>.* without data"),
        (lambda m: m.chat([user("a", 3.5)]), TypeError, "float"),
        (lambda m: m.chat([user("a")], settings={"beams": 4}), ValueError, "unknown settings beams"),
        (lambda m: m.chat([user("a"), assistant("long " * 600), user("b")]), ValueError, "positions"),
        (lambda m: m.submit(None, Ask("chat", {})), TypeError, "chat needs messages="),
        (lambda m: m.submit(None, Ask("chat", {"messages": "a"})), TypeError, "messages must be a list of messages"),
        (lambda m: m.submit(None, Ask("chat", arguments([user("")]))), ValueError, "chat needs a text or an image"),
        (
            lambda m: m.submit(PICTURE, Ask("chat", {"messages": [user("a", PICTURE)]})),
            ValueError,
            r"messages\[0\]: the pictures of an ask are its image, and not in its messages",
        ),
    ],
)  # fmt: skip
def test_what_is_refused_says_why(shapes, call, error, fault):
    with pytest.raises(error, match=fault):
        call(shapes)
    assert shapes.engine.drain(PATIENCE)


def test_a_picture_may_be_all_that_is_asked(shapes):
    said = shapes.chat([{"role": "user", "content": [{"type": "image", "image": PICTURE}]}], settings=GREEDY)
    other = shapes.submit(PICTURE, Ask("chat", {"messages": [{"role": "user", "content": ""}]}, GREEDY))
    assert said.tokens and other.future.result(PATIENCE).tokens == said.tokens


def test_for_asyncio_it_is_the_same(shapes):
    messages = [user(QUESTION, address()), assistant("3"), user("Which colours?")]
    wanted = shapes.chat(messages, settings=GREEDY)

    async def main():
        async with asyncio.timeout(PATIENCE):
            model = AsyncMoondream(shapes)
            assert await model.chat(messages, settings=GREEDY) == wanted
            stream = model.stream_chat(messages, settings=GREEDY)
            assert "".join([piece async for piece in stream]) == wanted["message"]["content"]
            assert stream.result == wanted and stream.result.tokens == wanted.tokens
            thought = await model.chat(messages, GREEDY, True)
            stream = model.stream_chat(messages, {**GREEDY, "reasoning": True})
            assert "".join([piece async for piece in stream]) == thought["message"]["content"]
            assert stream.result["reasoning"]["text"] == thought["message"]["reasoning"]
            with pytest.raises(DeadlineExceeded):
                await model.chat(messages, settings=GREEDY, timeout=0)
            with pytest.raises(TypeError, match="chat has no argument 'image'; it takes messages, settings, reasoning"):
                await model.chat(messages, image=PICTURE)  # pyright: ignore[reportCallIssue]

    asyncio.run(main())
    assert shapes.engine.drain(PATIENCE)


class Letters:
    """In place of a tokenizer: one id a letter."""

    def encode(self, text: str, most: int | None = None) -> list[int]:
        return [100 + ord(letter) % 400 for letter in text]

    def decode(self, ids) -> str:
        return "".join(chr(0x4E00 + i) for i in ids)

    def is_text(self, token_id: int) -> bool:
        return True


PLACE = {"type": "image"}
TALK = (
    {"role": "system", "content": "In one word."},
    {"role": "user", "content": "What is it? "},
    {"role": "assistant", "content": "\tA cat"},
    {"role": "user", "content": "Sure?"},
    {"role": "user", "content": "Where is it?"},
)


@pytest.mark.parametrize("name", [pytest.param("md2-tiny", marks=pytest.mark.slow), "md3-tiny"])
def test_both_families_answer_as_the_oracle(goldens, name):
    family, params = load_model(goldens / name, jnp.float32)
    oracle, tokenizer = Oracle(params, family), Letters()
    pixels = np.random.default_rng(0).integers(0, 256, (120, 90, 3), np.uint8)
    engine = EngineConfig(
        max_rows=4, step_rows=(4,), prefill_rows=(1,), prefill_lengths=(32,), vision=((1, 7),), host_masks=False
    )
    with Moondream(params, family.config, tokenizer, engine=engine) as model:  # pyright: ignore[reportArgumentType]
        image = oracle.encode_image(model.encode_image(pixels).image.crops)
        for seed, (first, last, reasoning) in enumerate([(0, 4, True), (1, 5, False)]):
            turns = TALK[first:last]
            given = {"temperature": (seed % 2) * 1.0, "top_p": 1.0, "seed": seed, "max_tokens": 12}
            ask = Ask("chat", {"messages": turns, "reasoning": reasoning}, given)
            result = model.submit(pixels, ask).future.result(PATIENCE)
            prompt = chat_prompt(family.config.tokenizer, tokenizer.encode, turns_of(turns), reasoning)
            grammar = family.grammars["reasoning" if reasoning else "text"]
            truth = oracle.run(OracleRequest(prompt, grammar, Settings(**given), image))
            assert result.tokens == tuple(token.id for token in truth.tokens), (turns, reasoning)
            assert result.logprob == pytest.approx(sum(token.logprob for token in truth.tokens), abs=1e-3)
        other = oracle.encode_image(model.encode_image(pixels[:, ::-1]).image.crops)
        front = name == "md2-tiny"
        turns = [
            {"role": "user", "content": [PLACE] * front + [{"type": "text", "text": "Hm?"}]},
            {"role": "user", "content": [PLACE, {"type": "text", "text": "What?"}]},
        ]
        prompt = chat_prompt(family.config.tokenizer, tokenizer.encode, turns_of(turns))
        given = {"temperature": 1.0, "seed": 3, "max_tokens": 6}
        images = SeveralImages(front * (pixels,) + (pixels[:, ::-1],))
        ask = Ask("chat", {"messages": turns, "reasoning": False}, given)
        result = model.submit(images, ask).future.result(PATIENCE)
        settings, picture = Settings(**given), image if front else None
        truth = oracle.run(OracleRequest(prompt, family.grammars["text"], settings, picture, further=[other]))
        assert result.tokens == tuple(token.id for token in truth.tokens)
        assert result.logprob == pytest.approx(sum(token.logprob for token in truth.tokens), abs=1e-3)
