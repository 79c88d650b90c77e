"""Two processes with the small model and its adapters answer as one, also when one is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from jaxphoton import Moondream
from jaxphoton.batch.workers.inprocess import EngineOptions
from jaxphoton.batch.workers.pool import Replicas
from jaxphoton.image.errors import ImageError
from jaxphoton.requests.ask import Ask, Job
from jaxphoton.requests.errors import DeadlineExceeded, UnknownAdapter
from tests.adapters import saved

EXAMPLES = Path(__file__).parents[3] / "examples" / "shapes"
OPTIONS = EngineOptions(deterministic=True)
GREEDY = {"temperature": 0}
ASKS = (
    Ask("caption", {}, GREEDY),
    Ask("detect", {"object": "circle"}),
    Ask("caption", {}, {"seed": 3}),
    Ask("caption", {}, {**GREEDY, "max_tokens": 9}, adapter="cats"),
    Ask("caption", {}, {**GREEDY, "max_tokens": 9}, adapter="tune@7"),
)


def jobs(tmp_path: Path) -> list[Job]:
    """Every example as a path and as bytes, and a file that is none."""
    pictures = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".png", ".jpg"))
    broken = tmp_path / "broken.png"
    broken.write_bytes(pictures[0].read_bytes()[:100])
    images = [image for path in pictures for image in (path, path.read_bytes())]
    return [Job(f"key {number}", image, ASKS) for number, image in enumerate([*images, broken])]


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> dict:
    """Of the model: JSON values."""
    root = tmp_path_factory.mktemp("adapters")
    saved(root / "folder" / "tune" / "7.safetensors", 7)
    adapters = {"cats": str(saved(root / "cats.safetensors", 1))}
    return {"path_or_id": "shapes", "adapters": adapters, "adapter_folder": str(root / "folder")}


@pytest.fixture(scope="module")
def model(options) -> Iterator[Moondream]:
    """In this process."""
    with Moondream.from_pretrained(**options) as model:
        model.engine_config = OPTIONS.applied(model.engine_config, model.family.max_context)
        yield model


def test_the_same_answers_and_one_killed_in_the_middle(model, options, tmp_path):
    asked, found, lines = jobs(tmp_path), {}, []
    alone = {answer.key: answer for answer in model.answer(asked)}
    with Replicas((None, None), options, OPTIONS, log=lines.append) as replicas:
        for answer in replicas.answer(iter(asked)):
            assert answer.key not in found
            found[answer.key] = answer
            if len(found) == 5:
                os.kill(replicas.pids[0], signal.SIGKILL)
        stages = replicas.stages
    assert any("has died" in line for line in lines)
    assert found.keys() == alone.keys()
    for key, answer in found.items():
        if not answer.error:
            plain, _, _, cats, tune = answer.results
            assert len({plain.tokens[:9], cats.tokens, tune.tokens}) == 3
        other = alone[key]
        assert answer.results == other.results and answer.size == other.size and answer.notes == other.notes
        for one, two in zip(answer.results, other.results, strict=True):
            assert (one.tokens, one.logprob, one.finish_reason) == (two.tokens, two.logprob, two.finish_reason)
    (broken,) = (answer for answer in found.values() if answer.error)
    assert isinstance(broken.error, ImageError) and broken.error.reason == "truncated"
    assert stages["decode"] > 0


def test_a_model_that_does_not_exist():
    with pytest.raises(ValueError, match="no-such-model"):
        Replicas((None, None), {"path_or_id": "./no-such-model"}, log=lambda line: None)


def test_single_asks_as_of_a_model_in_this_process(model, options):
    picture = sorted(EXAMPLES.glob("*.png"))[0]
    query = Ask("query", {"question": "What shapes are there?"}, GREEDY)
    turns = [{"role": "user", "content": "A circle?"}, {"role": "assistant", "content": "Yes."}]
    chat = Ask("chat", {"messages": [*turns, {"role": "user", "content": "Where?"}]}, GREEDY)
    asks = [*ASKS, query, Ask("point", {"object": "circle"}, GREEDY), chat]
    alone = [followed(model, picture, ask) for ask in asks]
    with Replicas((None,), options, OPTIONS, log=lambda line: None) as replicas:
        for image in (picture, picture.read_bytes()):
            assert [followed(replicas, image, ask) for ask in asks] == alone
        broken = replicas.submit(picture.read_bytes()[:100], ASKS[0]).future.exception(120)
        assert isinstance(broken, ImageError) and broken.reason == "truncated"
        wrong = replicas.submit(picture, Ask("caption", {"length": "endless"})).future.exception(120)
        assert isinstance(wrong, ValueError) and "endless" in str(wrong)
        unknown = replicas.submit(picture, Ask("caption", adapter="birds")).future.exception(120)
        assert isinstance(unknown, UnknownAdapter) and "there is cats, tune@7" in str(unknown)
        late = replicas.submit(picture, Ask("caption", deadline=time.monotonic() + 1e-3), wait=True)
        assert isinstance(late.future.exception(120), DeadlineExceeded)
        begun = threading.Event()
        given_up = replicas.submit(picture, ASKS[0], lambda event: begun.set())
        assert begun.wait(120)
        given_up.cancel()
        with contextlib.suppress(CancelledError):  # it may have ended before
            given_up.future.result(120)
        assert followed(replicas, picture, query) == alone[len(ASKS)]


def followed(model: Moondream | Replicas, image, ask: Ask) -> tuple:
    events = []
    result = model.submit(image, ask, lambda event: events.append(dict(event))).future.result(120)
    return dict(result), result.tokens, result.finish_reason, events
