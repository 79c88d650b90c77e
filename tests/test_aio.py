"""`AsyncMoondream` on the shipped model: the same answers, and a loop that never waits."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
from pathlib import Path

import pytest

from jaxphoton import AsyncMoondream, DeadlineExceeded, ImageError, ModelClosed, QueueFull
from tests.beside import beside

PATIENCE = 300.0  # seconds after which a test fails; none waits so long
EXAMPLES = Path(__file__).parents[1] / "examples" / "shapes"
PICTURES = sorted(p for p in EXAMPLES.iterdir() if p.suffix in (".png", ".jpg", ".jpeg"))
PICTURE = PICTURES[0]
GREEDY = {"temperature": 0}
NOISE = {"temperature": 30.0, "top_p": 1.0, "max_tokens": 60}
QUESTION = "How many objects are there?"


def run(main):
    """The result of a coroutine, on a loop of its own; nothing may be left that the loop complains about."""
    complaints = []

    async def guarded():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        async with asyncio.timeout(PATIENCE):
            return await main

    try:
        return asyncio.run(guarded())
    finally:
        gc.collect()
        assert not complaints


class Halt:
    """Stops the engine's thread at the fourth token of a request, until it is opened."""

    def __init__(self, engine, monkeypatch):
        self.engine, self.submissions = engine, []
        self._submit, self._open, self._reached = engine.submit, threading.Event(), threading.Event()
        monkeypatch.setattr(engine, "submit", self._halted)

    def _halted(self, request, on_token=None, wait=False):
        heard = []

        def listen(token, finish) -> None:
            if on_token is not None:
                on_token(token, finish)
            heard.append(token)
            if len(heard) == 4:
                self._reached.set()
                assert self._open.wait(PATIENCE)

        self.submissions.append(self._submit(request, listen, wait))
        return self.submissions[-1]

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, PATIENCE)

    async def ended(self) -> None:
        """Lets the engine go on, and waits until it has nothing to do."""
        self._open.set()
        assert await asyncio.to_thread(self.engine.drain, PATIENCE)


@pytest.fixture
def model(shapes):
    return AsyncMoondream(shapes)


@pytest.fixture
def halt(shapes, monkeypatch):
    halt = Halt(shapes.engine, monkeypatch)
    yield halt
    halt._open.set()
    assert halt.engine.drain(PATIENCE)


@pytest.fixture
def own(shapes):
    """A model of the test's own, to be closed; one request may wait."""
    with beside(shapes, max_waiting=1) as model:
        yield AsyncMoondream(model)


async def collect(stream) -> list[str]:
    return [piece async for piece in stream]


def test_results_equal_those_without_asyncio(shapes, model):
    encoded, short = shapes.encode_image(PICTURE), {**GREEDY, "max_tokens": 12}
    calls = [
        lambda m: m.caption(encoded, "short", settings=GREEDY),
        lambda m: m.query(PICTURE, QUESTION, settings=GREEDY),
        lambda m: m.query(PICTURE, QUESTION, reasoning=True, settings=short),
        lambda m: m.query(question="What?", settings=short),
        lambda m: m.query(PICTURE, QUESTION, settings={**short, "choices": ["none", "a few", "many"]}),
        lambda m: m.detect(str(PICTURE), "object"),
        lambda m: m.point(PICTURE.read_bytes(), "star", [(0.5, 0.5)]),
        lambda m: m.caption(PICTURES[:3], settings=GREEDY),
    ]

    async def main():
        return [await call(model) for call in calls]

    got, expected = run(main()), [call(shapes) for call in calls]
    assert got == expected and [r.tokens for r in got[:-1]] == [r.tokens for r in expected[:-1]]
    assert all(r.metrics.output_tokens == len(r.tokens) and r.finish_reason for r in got[:-1])
    assert run(model.encode_image(PICTURE)).image.digest == encoded.image.digest


def test_thirty_at_once(shapes, model):
    async def main():
        calls = []
        for i in range(10):
            image = PICTURES[i % 3]
            calls.append(model.caption(image, settings=GREEDY, priority=i % 2))
            calls.append(model.detect(image, "object", timeout=1000.0))
            calls.append(collect(model.stream_query(image, QUESTION, settings=GREEDY)))
        return await asyncio.gather(*calls)

    got = run(main())
    for i, image in enumerate(PICTURES[:3]):
        caption, boxes = shapes.caption(image, settings=GREEDY), shapes.detect(image, "object")
        answer = shapes.query(image, QUESTION, settings=GREEDY)["answer"]
        for k in range(i, 10, 3):
            assert (*got[3 * k : 3 * k + 2], "".join(got[3 * k + 2])) == (caption, boxes, answer)


@pytest.mark.parametrize("settings", [GREEDY, {**NOISE, "seed": 1}, {**NOISE, "seed": 2}])
def test_a_stream_is_the_text_in_pieces(shapes, model, settings):
    whole = shapes.caption(PICTURE, settings=settings)
    stream = model.stream_caption(PICTURE, settings=settings)
    assert stream.result.finish_reason is None
    pieces = run(collect(stream))
    # How many depends on when they are read: those that wait come as one.
    assert pieces and all(pieces) and "".join(pieces) == whole["caption"]
    assert stream.result == whole
    assert (stream.result.finish_reason, stream.result.tokens) == (whole.finish_reason, whole.tokens)
    assert stream.result.metrics.output_tokens == len(whole.tokens)


def test_a_streamed_answer_comes_after_its_reasoning(shapes, model):
    settings = {"temperature": 0, "max_tokens": 12}
    stream = model.stream_query(PICTURE, QUESTION, reasoning=True, settings=settings)
    whole = shapes.query(PICTURE, QUESTION, reasoning=True, settings=settings)
    assert "".join(run(collect(stream))) == whole["answer"] and stream.result == whole


def test_any_number_of_loops_one_after_the_other(shapes):
    model = run(AsyncMoondream.from_pretrained("shapes", engine=shapes.engine_config))
    answers = [run(model.caption(PICTURE, settings=GREEDY)) for _ in range(3)]
    assert answers == 3 * [shapes.caption(PICTURE, settings=GREEDY)]
    run(model.aclose()), run(model.aclose())


def test_cancelling_the_task_ends_the_request(model, halt):
    async def main():
        task = asyncio.create_task(model.caption(PICTURE, settings=GREEDY))
        await halt.reached()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await halt.ended()

    run(main())
    assert halt.submissions[0].future.cancelled() and len(halt.submissions[0].sequence.tokens) == 4


def test_cancelling_while_the_image_is_prepared_submits_nothing(model, halt, monkeypatch):
    started, go_on = threading.Event(), threading.Event()
    prepared = model.model.session.images.prepared_beside

    def slow(image, many):
        started.set()
        assert go_on.wait(PATIENCE)
        return prepared(image, many)

    monkeypatch.setattr(model.model.session.images, "prepared_beside", slow)

    async def main():
        task = asyncio.create_task(model.caption(PICTURE))
        assert await asyncio.to_thread(started.wait, PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()

    run(main())
    assert not halt.submissions


@pytest.mark.parametrize("how", ["aclose", "break", "cancel"])
def test_leaving_a_stream_ends_the_request(model, halt, how):
    async def main():
        stream = model.stream_caption(PICTURE, settings=GREEDY)
        async for _ in stream:
            await halt.reached()
            break
        if how == "aclose":
            await stream.aclose()
            assert await collect(stream) == []
        elif how == "cancel":
            task = asyncio.create_task(collect(stream))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            del task
        else:
            del stream
            gc.collect()
        while not halt.engine._commands:  # the engine stands still: what it was told stays there
            await asyncio.sleep(0)
        await halt.ended()

    run(main())
    assert halt.submissions[0].future.cancelled() and len(halt.submissions[0].sequence.tokens) == 4


def test_a_stream_that_is_left_open_ends_with_its_loop(model, halt, caplog):
    kept = []

    async def main():
        kept.append(model.stream_caption(PICTURE, settings=GREEDY))
        await anext(kept[0])
        await halt.reached()

    run(main())
    halt._open.set()
    assert halt.engine.drain(PATIENCE) and halt.submissions[0].future.cancelled()


def test_a_stream_that_is_never_read_asks_nothing(model, halt):
    async def main():
        await model.stream_caption(PICTURE).aclose()
        model.stream_caption(PICTURE)

    run(main())
    assert not halt.submissions


def test_passing_the_deadline_ends_the_request(model, halt, monkeypatch):
    async def main():
        stream = model.stream_caption(PICTURE, settings=GREEDY, timeout=1000.0)
        pieces = [await anext(stream)]
        await halt.reached()
        monkeypatch.setattr(halt.engine._submissions, "_clock", lambda: math.inf)
        await halt.ended()
        with pytest.raises(DeadlineExceeded, match="while the request ran"):
            async for piece in stream:
                pieces.append(piece)
        with pytest.raises(DeadlineExceeded):
            await model.caption(PICTURE, timeout=1000.0)
        return pieces

    assert run(main()) and len(halt.submissions[0].sequence.tokens) == 4
    assert not halt.submissions[1].sequence.tokens


@pytest.mark.parametrize("first", ["the limit", "the picture"])
def test_the_deadline_counts_the_preparation_too(model, halt, monkeypatch, first):
    """Whichever of the two the loop sees first."""
    ready = threading.Event()

    class Never:
        async def __aenter__(self):
            return self

        async def __aexit__(self, *_):
            return None

    def slow(image, many):
        assert ready.wait(PATIENCE)
        raise AssertionError("nobody waits for this picture")

    if first == "the limit":
        monkeypatch.setattr(model.model.session.images, "prepared_beside", slow)
    else:
        monkeypatch.setattr(asyncio, "timeout", lambda _: Never())
    image = PICTURES[1]

    async def main():
        try:
            with pytest.raises(DeadlineExceeded, match="before the request was ready"):
                await model.caption(image, timeout=0.0)
        finally:
            ready.set()

    asyncio.run(main())
    assert not halt.submissions
    for wrong in (-1.0, math.nan):
        with pytest.raises(ValueError, match="timeout must be at least 0"):
            run(model.caption(PICTURE, timeout=wrong))


@pytest.mark.parametrize("never", [10**400, math.inf], ids=["int", "inf"])
def test_a_timeout_beyond_every_clock_is_none(model, never):
    assert run(model.caption(PICTURE, settings=GREEDY, timeout=never))["caption"]


def test_a_slow_reader_delays_nobody(shapes, model):
    async def main():
        stream = model.stream_caption(PICTURE, settings=GREEDY)
        pieces = [await anext(stream)]
        others = await asyncio.gather(*(model.caption(image, settings=GREEDY) for image in PICTURES[1:4]))
        assert await asyncio.to_thread(shapes.engine.drain, PATIENCE)  # also what nobody has read yet
        return "".join(pieces + await collect(stream)), others

    text, others = run(main())
    assert text == shapes.caption(PICTURE, settings=GREEDY)["caption"]
    assert others == [shapes.caption(image, settings=GREEDY) for image in PICTURES[1:4]]


def test_a_broken_image_is_its_own_request_s_fault(shapes, model):
    async def main():
        return await asyncio.gather(
            model.caption(PICTURE, settings=GREEDY),
            model.caption("nowhere.png"),
            model.detect(b"not an image", "object"),
            collect(model.stream_caption("nowhere.png")),
            model.caption([PICTURE, "nowhere.png"]),
            return_exceptions=True,
        )

    good, *bad = run(main())
    assert good == shapes.caption(PICTURE, settings=GREEDY) and all(isinstance(fault, ImageError) for fault in bad)
    assert shapes.engine.drain(PATIENCE)


def test_what_is_refused_says_why(model):
    for call, error, fault in (
        (lambda: model.caption(PICTURE, "tiny"), ValueError, "length must be one of"),
        (lambda: model.caption(PICTURE, type="danbooru"), ValueError, "has no caption types.*not type='danbooru'"),
        (lambda: model.caption(None), ValueError, "caption needs an image"),
        (lambda: model.query(None, "Where?", spatial_refs=[(0.5, 0.5)]), ValueError, "need an image"),
        (lambda: model.detect(PICTURE, ""), ValueError, "object must not be empty"),
        (
            lambda: model.caption(PICTURE, timout=3),
            TypeError,
            "AsyncModel.caption has no argument 'timout'; it takes image, length, settings, type, extra, name, "
            "timeout, priority",
        ),
        (lambda: model.detect(PICTURE, "car", priority=0.5), TypeError, "priority must be an int, not float"),
    ):
        with pytest.raises(error, match=fault):
            run(call())


def test_more_than_may_wait_are_refused(own, monkeypatch):
    halt = Halt(own.model.engine, monkeypatch)
    allowed = own.model.engine_config.max_rows + 1

    async def main():
        image = await own.encode_image(PICTURE)
        tasks = [asyncio.create_task(own.caption(image, settings=GREEDY)) for _ in range(allowed)]
        await halt.reached()
        while len(halt.submissions) < allowed:
            await asyncio.sleep(0)
        with pytest.raises(QueueFull, match="requests are waiting or running"):
            await own.caption(image)
        await halt.ended()
        return await asyncio.gather(*tasks)

    answers = run(main())
    assert answers == allowed * [answers[0]]


def test_closing_ends_what_is_under_way_and_refuses_what_comes_later(own, monkeypatch):
    halt = Halt(own.model.engine, monkeypatch)

    async def main():
        async with own:
            tasks = [
                asyncio.create_task(own.caption(PICTURE, settings=GREEDY)),
                asyncio.create_task(collect(own.stream_caption(PICTURE, settings=GREEDY))),
            ]
            await halt.reached()
            while len(halt.submissions) < 2:
                await asyncio.sleep(0)
            closing = asyncio.create_task(own.aclose())
            while not halt.engine._closing:
                await asyncio.sleep(0)
            halt._open.set()
            await closing
            for task in tasks:
                with pytest.raises(ModelClosed):
                    await task
        for call in (own.caption(PICTURE), anext(own.stream_caption(PICTURE)), own.encode_image(PICTURE)):
            with pytest.raises(ModelClosed):
                await call

    run(main())


def test_a_list_longer_than_the_queue_waits(own, shapes):
    """One request may wait; a list asks as many as the engine takes, also beside others."""

    async def main():
        return await asyncio.gather(*(own.caption(PICTURES[:3] * 9, settings=GREEDY) for _ in range(2)))

    truth = [shapes.caption(path, settings=GREEDY) for path in PICTURES[:3]] * 9
    assert run(main()) == [truth, truth]


def test_a_constraint_is_made_beside_the_loop(model, shapes, monkeypatch):
    """Making one may take long: the thread of the loop never does it, whatever asks."""
    makers, loops = [], []
    compile_ = shapes.session.preparer.grammars.compile

    def watched(*arguments):
        make = compile_(*arguments)
        makers.append(threading.get_ident())

        def made():
            makers.append(threading.get_ident())
            return make()

        return made

    monkeypatch.setattr(shapes.session.preparer.grammars, "compile", watched)
    settings = {**GREEDY, "choices": ["none", "a few", "many"]}

    async def main():
        loops.append(threading.get_ident())
        one = await model.query(PICTURE, QUESTION, settings=settings)
        many = await model.query(PICTURES[:2], QUESTION, settings=settings)
        return one, many, "".join(await collect(model.stream_query(PICTURE, QUESTION, settings=settings)))

    one, many, text = run(main())
    assert one["answer"] == many[0]["answer"] == text in settings["choices"]
    assert len(makers) == 5 and not set(makers) & set(loops)


def test_cancelling_while_the_constraint_is_made_gives_the_request_up(model, halt, shapes, monkeypatch):
    making, go_on, given_up = threading.Event(), threading.Event(), threading.Event()
    cancel, settings = halt.engine.cancel, {**GREEDY, "choices": ["none of all those", "many of all those"]}
    monkeypatch.setattr(halt.engine, "cancel", lambda submission: (cancel(submission), given_up.set()))
    compile_ = shapes.session.preparer.grammars.compile

    def slow(*arguments):
        make = compile_(*arguments)

        def made():
            making.set()
            assert go_on.wait(PATIENCE)
            return make()

        return made

    monkeypatch.setattr(shapes.session.preparer.grammars, "compile", slow)

    async def main():
        task = asyncio.create_task(model.query(PICTURE, QUESTION, settings=settings))
        assert await asyncio.to_thread(making.wait, PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        assert await asyncio.to_thread(given_up.wait, PATIENCE)
        halt._open.set()

    run(main())
    assert halt.engine.drain(PATIENCE) and halt.submissions[0].future.cancelled()


def test_image_workers_are_started_for_many_pictures_at_once_only(own, monkeypatch):
    images, asked = own.model.session.images, []
    pool = images.pool
    monkeypatch.setattr(images, "pool", lambda: asked.append(1) or pool())
    pictures = [PICTURES[i % 3] for i in range(40)]
    few = run(own.caption(pictures[:4], settings=GREEDY))
    assert images._pool is None and not asked
    many = run(own.caption(pictures, settings=GREEDY))
    assert asked and images._pool is not None and many[:4] == few
