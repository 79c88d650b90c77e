"""The life of a model: what closing and dropping give back, whoever does it and whenever."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxphoton
from jaxphoton import (
    Ask,
    AsyncMoondream,
    EngineConfig,
    EngineError,
    EngineStartError,
    Job,
    ModelClosed,
    Moondream,
)
from jaxphoton.config.mesh import MeshError
from jaxphoton.engine import compiled, compiling, places, programs
from jaxphoton.image.errors import ImageError
from jaxphoton.requests.dispatcher import Dispatcher
from tests.beside import beside
from tests.engine.blocking import BlockingCallback

PATIENCE = 300.0
ENGINE = EngineConfig(
    max_rows=2, step_rows=(2,), prefill_rows=(1,), prefill_lengths=(32,), vision=((1, 13),), host_masks=False
)
PICTURE = np.full((40, 60, 3), 200, np.uint8)


@pytest.fixture
def before():
    """Bytes on the device before the test; what it leaves behind shows beside them."""
    gc.collect()
    return live_bytes()


def live_bytes() -> int:
    return sum(array.nbytes for array in jax.live_arrays())


def load() -> Moondream:
    return Moondream.from_pretrained("shapes", engine=ENGINE)


@pytest.fixture(scope="module")
def made():
    """Programs of models that `load` returns."""
    return {}


@pytest.fixture
def compiled_once(monkeypatch, made):
    """Compiles a program for the first of the models alone; all else each makes for itself."""
    compile_one = compiled._compile_one

    def once(place, key, job):
        if key not in made:
            made[key] = compile_one(place, key, job)
        return made[key]

    monkeypatch.setattr(compiled, "_compile_one", once)


def test_three_closed_models_leave_nothing_on_the_device(before, compiled_once):
    models = []
    for _ in range(3):
        with load() as model:
            assert model.caption(PICTURE)["caption"]
            assert live_bytes() > before
        assert live_bytes() == before
        models.append(model)  # also while the objects live
    del models, model
    assert live_bytes() == before


def test_three_dropped_models_leave_nothing_on_the_device(before, compiled_once):
    for _ in range(3):
        model = load()
        assert model.caption(PICTURE)["caption"]
        engine = model.engine
        del model
        engine._thread.join(PATIENCE)
        assert not engine._thread.is_alive() and live_bytes() == before


@pytest.mark.parametrize("leaves", [False, True])
def test_a_model_that_is_dropped_after_a_batch_needs_no_collection_of_garbage(before, compiled_once, leaves):
    model = load()
    items = model.caption_batch(["nowhere.png", "nowhere.png", *[PICTURE] * 20])
    kept = [next(items) for _ in range(5)]
    gc.disable()
    try:
        if leaves:
            cast(Generator, items).close()
        kept += items
        assert all(isinstance(item.error, ImageError) == (item.key in (0, 1)) for item in kept)
        engine = model.engine
        for thread in threading.enumerate():
            if thread.name == "jaxphoton-jobs":
                thread.join(PATIENCE)
        del model, items
        engine._thread.join(PATIENCE)
        assert not engine._thread.is_alive() and live_bytes() == before
    finally:
        gc.enable()


def test_a_closed_async_model_leaves_nothing_on_the_device(before, compiled_once):
    async def main():
        async with await AsyncMoondream.from_pretrained("shapes", engine=ENGINE) as model:
            assert (await model.caption(PICTURE))["caption"] and live_bytes() > before
        assert live_bytes() == before
        with pytest.raises(ModelClosed):
            await model.caption(PICTURE)
        with pytest.raises(ModelClosed):
            _ = model.model.params

    asyncio.run(main())


def test_a_library_freezes_nobody_s_heap(before, compiled_once):
    gc.unfreeze()  # what tests/conftest.py has frozen may be freed meanwhile, and would count less
    try:
        frozen = gc.get_freeze_count()
        with load() as model:
            model.start()
        assert gc.get_freeze_count() == frozen
    finally:
        gc.freeze()


def test_an_engine_that_stops_compiling_half_way_leaves_nothing_and_may_try_again(before, monkeypatch):
    lowered = []

    def broken(*_):
        lowered.append(1)
        raise RuntimeError("UNIMPLEMENTED: no such thing\nand pages more")

    with load() as model:
        parameters = live_bytes()
        monkeypatch.setattr(programs, "prefill", broken)
        for _ in range(2):
            with pytest.raises(
                EngineStartError, match="^the engine cannot start: UNIMPLEMENTED: no such thing$"
            ) as kept:
                model.caption(PICTURE)
            assert live_bytes() == parameters
        assert isinstance(kept.value, EngineError) and "pages" not in str(kept.value) and lowered
        monkeypatch.undo()
        assert model.caption(PICTURE)["caption"]
    assert live_bytes() == before
    del kept


def test_an_interrupt_while_programs_are_compiled_waits_for_none_of_them(before, monkeypatch):
    go_on, begun = threading.Event(), threading.Semaphore(0)

    def slow(*_):
        begun.release()
        assert go_on.wait(PATIENCE)
        raise RuntimeError("nobody hears this")

    def interrupted(_):
        assert begun.acquire(timeout=PATIENCE)
        raise KeyboardInterrupt

    with load() as model:
        monkeypatch.setattr(programs, "step", slow)
        monkeypatch.setattr(compiling, "as_completed", interrupted)
        try:
            with pytest.raises(KeyboardInterrupt):
                model.caption(PICTURE)
        finally:
            go_on.set()
        monkeypatch.undo()
        assert model.caption(PICTURE)["caption"]


def test_a_device_too_small_is_an_error_that_is_documented(shapes, monkeypatch):
    monkeypatch.setattr(places, "memory_of", lambda _: (2 << 20, 1 << 20))
    with Moondream(shapes.params, shapes.config, shapes.tokenizer) as model:
        with pytest.raises(EngineStartError, match="the device's memory is too small: 1.80 MiB may be used"):
            model.start()


# What is under way when a model is closed, interrupted or left


@pytest.fixture
def own(shapes):
    """A model of the test's own, on programs that are compiled already; two requests may wait."""
    with beside(shapes, max_waiting=2, image_workers=1) as model:
        yield model


@pytest.fixture
def callback(own, monkeypatch):
    """Holds the engine at the first token of whatever is asked next."""
    callback, engine = BlockingCallback(), own.engine
    submit = engine.submit
    heard = []

    def held(request, on_token=None, wait=False):
        def listen(token, finish):
            if on_token is not None:
                on_token(token, finish)
            heard or heard.append(callback(token, finish))

        return submit(request, listen, wait)

    monkeypatch.setattr(engine, "submit", held)
    yield callback
    callback.release()


def drained(model: Moondream):
    engine = model.engine
    assert engine.drain(PATIENCE)
    return engine.metrics().outcomes


CALLS = {
    "call": lambda m: m.caption(PICTURE),
    "list": lambda m: m.caption([PICTURE, PICTURE]),
    "batch": lambda m: list(m.caption_batch(PICTURE for _ in range(100))),
    "batch of files": lambda m: list(m.caption_batch("examples/shapes/scene_05.png" for _ in range(100))),
    "stream": lambda m: "".join(m.caption(PICTURE, stream=True)["caption"]),
    "reasoning": lambda m: m.query(PICTURE, "Why?", reasoning=True, stream=True),
    "many at once": lambda m: ThreadPoolExecutor(20).map(m.caption, [PICTURE] * 10).__next__(),
}


@pytest.mark.parametrize("call", CALLS)
def test_closing_under_a_call_raises_one_error(own, callback, call):
    engine = own.engine
    with ThreadPoolExecutor(3) as pool:
        called = pool.submit(CALLS[call], own)
        callback.reached()
        closing = [pool.submit(own.close), pool.submit(own.close)]
        with engine._wake:
            assert engine._wake.wait_for(lambda: engine._closing, PATIENCE)
        callback.release()
        assert all(each.result(PATIENCE) is None for each in closing)
        with pytest.raises(ModelClosed, match="the model was closed"):
            called.result(PATIENCE)
    own.close()
    with pytest.raises(ModelClosed):
        own.caption(PICTURE)
    with pytest.raises(ModelClosed):
        own.start()
    with pytest.raises(ModelClosed):
        _ = engine.programs


def test_closing_ends_a_batch_that_waits_for_its_images(own):
    asked, go_on = threading.Event(), threading.Event()

    def images():
        yield PICTURE
        asked.set()
        go_on.wait(PATIENCE)

    batch = own.caption_batch(images())
    assert next(batch).error is None
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(list, batch)
        assert asked.wait(PATIENCE)
        own.close()
        with pytest.raises(ModelClosed):
            rest.result(PATIENCE)
    go_on.set()


def test_what_is_being_read_keeps_a_model_that_was_dropped(shapes):
    assert all(item.result for item in beside(shapes, image_workers=1).caption_batch([PICTURE] * 5))
    assert "".join(beside(shapes).caption(PICTURE, stream=True)["caption"])


@pytest.mark.parametrize("reads", [0, 1])
@pytest.mark.parametrize("keeps", ["the result", "the pieces"])
def test_a_stream_that_is_dropped_is_given_up(own, callback, reads, keeps):
    stream = own.caption(PICTURE, stream=True)
    if keeps == "the pieces":
        stream = stream["caption"]
    callback.reached()
    if reads:
        next(stream if keeps == "the pieces" else stream["caption"])
    gc.disable()  # nothing waits for it
    try:
        del stream
    finally:
        gc.enable()
    callback.release()
    outcomes = drained(own)
    assert (outcomes.cancelled, outcomes.finished) == (1, 0)


@pytest.mark.parametrize("call", ["call", "list", "stream", "reasoning"])
def test_an_interrupt_gives_up_what_it_interrupts(own, callback, monkeypatch, call):
    def interrupt(*_):
        callback.reached()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if call == "list":  # with one picture in the engine, when the other is ready
            start = Dispatcher._start
            patched.setattr(
                Dispatcher, "_start", lambda queue, work: interrupt() if queue._in_engine else start(queue, work)
            )
        else:
            result, waits = Future.result, threading.current_thread()
            patched.setattr(
                Future, "result", lambda *args: interrupt() if threading.current_thread() is waits else result(*args)
            )
            patched.setattr("jaxphoton.requests.calls.SimpleQueue", lambda: SimpleNamespace(put=list, get=interrupt))
        with pytest.raises(KeyboardInterrupt) as kept:  # with all frames
            CALLS[call](own)
    callback.release()
    outcomes = drained(own)
    assert (outcomes.cancelled, outcomes.finished) == (1, 0)
    del kept


def test_the_engine_s_settings_can_be_set_until_it_starts(shapes):
    with Moondream(shapes.params, shapes.config, shapes.tokenizer) as model:
        model.engine_config = ENGINE
        assert model.engine_config is ENGINE
        with pytest.raises(TypeError, match="must be an EngineConfig, not dict"):
            model.engine_config = cast(Any, {"max_rows": 3})
    with pytest.raises(ModelClosed):
        model.engine_config = ENGINE
    with pytest.raises(RuntimeError, match="before the first request only"):
        shapes.engine_config = ENGINE
    assert shapes.engine_config is shapes.engine.config


def test_a_sharding_that_splits_parameters_is_refused():
    split = NamedSharding(jax.make_mesh((1,), ("x",)), PartitionSpec())
    with Moondream.from_pretrained("shapes", sharding=split) as model:
        assert model.params.text.wte.sharding == split

    class Split(NamedSharding):
        is_fully_replicated = cast(Any, False)  # as over two devices

    with pytest.raises(ValueError, match="must keep every parameter whole on each device"):
        Moondream.from_pretrained("shapes", sharding=Split(jax.make_mesh((1,), ("x",)), PartitionSpec("x")))


def test_rules_without_a_mesh_are_refused_for_parameters_too(shapes):
    with pytest.raises(ValueError, match="mesh_rules are those of a mesh, and there is none"):
        Moondream(shapes.params, shapes.config, shapes.tokenizer, mesh_rules={"vocab": ()})


# The engine's queue: two may wait behind eight rows, and batches wait for their turn


def test_a_batch_larger_than_the_queue_waits(own):
    pictures = [np.full((30, 40 + i, 3), 5 * i, np.uint8) for i in range(40)]
    items = list(own.caption_batch(pictures, settings={"temperature": 0}))
    assert sorted(item.key for item in items) == list(range(40)) and all(item.result for item in items)
    assert len(own.caption(pictures[:20], settings={"temperature": 0})) == 20
    assert drained(own).finished == 60


def test_a_job_larger_than_the_queue_waits_for_itself(own):
    asks = tuple(Ask("caption", settings={"temperature": 1.0, "seed": i}) for i in range(50))
    (answer,) = own.answer([Job("all", PICTURE, asks)])
    assert answer.error is None and [result.seed for result in answer.results] == list(range(50))


def test_two_batches_and_single_requests_share_the_queue(own):
    def batch(_):
        return [item.error for item in own.caption_batch([PICTURE] * 25)]

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(batch, range(3))) == 3 * [25 * [None]]


@pytest.mark.parametrize("rows", [1, 8, 2000])
@pytest.mark.parametrize("waiting", [0, 2, 1024])
def test_no_batch_asks_more_than_the_engine_takes(rows, waiting):
    engine = EngineConfig(max_rows=rows, step_rows=(rows,), max_waiting=waiting)
    assert rows <= engine.batch_requests <= engine.most_requests == rows + waiting


def test_what_the_documents_import_can_be_imported():
    for name in jaxphoton.__all__:
        assert getattr(jaxphoton, name) is not None
    assert {"EngineConfig", "Result", "Job", "Ask", "Answer", "ModelClosed"} <= set(jaxphoton.__all__)


@pytest.mark.parametrize(
    ("options", "error", "fault"),
    [
        ({"device": 5}, TypeError, "device must be a name .* not 5"),
        ({"device": ["cpu"]}, TypeError, "device must be a name"),
        ({"dtype": 5}, TypeError, "dtype must be one of float32, bfloat16 or a dtype, not 5"),
        ({"sharding": PartitionSpec()}, TypeError, "sharding must be a jax.sharding.Sharding"),
        ({"sharding": "cpu"}, TypeError, "sharding must be a jax.sharding.Sharding, not 'cpu'"),
        ({"mesh": 2}, TypeError, "mesh must be a text such as .* not 2"),
        ({"mesh": "model"}, MeshError, 'a mesh is written like "model=2,expert=2"'),
        ({"mesh": "model=1000"}, MeshError, "needs 1000 devices, and there (is|are) [0-9]+: "),
        ({"mesh": "data=2"}, MeshError, "data=2.* several copies are replicas"),
        ({"mesh": jax.make_mesh((1,), ("rows",))}, MeshError, "the axes data, model, expert; this one has 'rows'"),
        ({"mesh": Mesh([jax.devices()[0]] * 2, ("model",))}, MeshError, "one device at least, and none twice"),
        ({"mesh": "model=1", "mesh_rules": {"heds": ()}}, MeshError, "rules may be for .*heads.*, not for heds"),
        ({"mesh": "model=1", "mesh_rules": {"embed": "model"}}, MeshError, "rules may be for .*, not for embed"),
        ({"mesh": "model=1", "mesh_rules": {"vocab": None}}, TypeError, "rules are written like .*, not {'vocab': Non"),
        ({"mesh": "model=1", "mesh_rules": ["vocab"]}, TypeError, "rules are written like"),
        ({"mesh": "model=1", "mesh_rules": {"vocab": ["model"] * 2}}, MeshError, "split vocab over the same"),
        ({"mesh": "model=1", "device": "cpu"}, ValueError, "device, sharding or mesh, not several"),
        ({"mesh": "model=1", "executables": "somewhere"}, ValueError, "executables run on one device: give no mesh"),
        ({"mesh_rules": {"vocab": ()}}, ValueError, "there is none"),
        ({"max_pixels": "many"}, TypeError, "max_pixels must be an integer, not 'many'"),
        ({"max_pixels": 0}, ValueError, "max_pixels must be at least 1, not 0"),
        ({"background": 5}, ValueError, "background must be three integers from 0 to 255, not 5"),
        ({"background": "white"}, ValueError, "background must be three integers"),
        ({"background": (True, 0, 0)}, ValueError, "background must be three integers"),
    ],
)
def test_options_of_the_wrong_kind_are_named_before_any_picture(options, error, fault):
    with pytest.raises(error, match=fault):
        Moondream.from_pretrained("shapes", **options)


def test_a_pool_that_no_memory_holds_is_found_before_the_host_lists_its_pages(monkeypatch, compiled_once):
    def too_large(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    def listed(pages):
        pytest.fail(f"a list of {pages:,} pages")

    monkeypatch.setattr("jaxphoton.engine.engine.Device", too_large)
    monkeypatch.setattr("jaxphoton.engine.engine.PageAllocator", listed)
    with load() as model, pytest.raises(EngineStartError, match="RESOURCE_EXHAUSTED"):
        model.start()


@pytest.mark.parametrize(
    ("refs", "error"),
    [(5, TypeError), (np.float32(0.5), TypeError), ([(0.5, np.nan)], ValueError), (np.ones((1, 3)), ValueError)],
)
def test_references_that_are_none_are_refused_in_words(shapes, refs, error):
    with pytest.raises(error, match=r"each from 0 to 1, not"):
        shapes.query(PICTURE, "What is here?", spatial_refs=refs)


def test_references_may_be_an_array_and_need_an_image(shapes):
    refs = np.array([[0.25, 0.5], [0.5, 0.75]])
    ask = {"question": "What is here?", "settings": {"temperature": 0, "max_tokens": 2}}
    assert shapes.query(PICTURE, spatial_refs=refs, **ask) == shapes.query(PICTURE, spatial_refs=refs.tolist(), **ask)
    assert shapes.query(None, spatial_refs=np.empty((0, 2)), **ask)["answer"] is not None
    with pytest.raises(ValueError, match="spatial_refs need an image"):
        shapes.query(None, spatial_refs=refs, **ask)
    with pytest.raises(ValueError, match="spatial_refs need an image"):
        asyncio.run(AsyncMoondream(shapes).query(None, spatial_refs=refs, **ask))


@pytest.mark.parametrize("images", ["one.png", b"\x89PNG", Path("one.png")])
def test_one_image_is_no_batch(shapes, images):
    with pytest.raises(TypeError):
        shapes.caption_batch(images)
