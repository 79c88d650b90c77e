"""Two processes with the small model answer as one, also when one is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from jaxphoton import Moondream
from jaxphoton.batch.workers.engine_options import EngineOptions
from jaxphoton.batch.workers.pool import Replicas
from jaxphoton.image.errors import ImageError
from jaxphoton.requests.ask import Ask, Job

EXAMPLES = Path(__file__).parents[3] / "examples" / "shapes"
OPTIONS = EngineOptions(deterministic=True)
GREEDY = {"temperature": 0}
ASKS = (Ask("caption", {}, GREEDY), Ask("detect", {"object": "circle"}), Ask("caption", {}, {"seed": 3}))


def jobs(tmp_path: Path) -> list[Job]:
    """Every example as a path and as bytes, and a file that is none."""
    pictures = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".png", ".jpg"))
    broken = tmp_path / "broken.png"
    broken.write_bytes(pictures[0].read_bytes()[:100])
    images = [image for path in pictures for image in (path, path.read_bytes())]
    return [Job(f"key {number}", image, ASKS) for number, image in enumerate([*images, broken])]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict:
    """What one process answers."""
    with Moondream.from_pretrained("shapes") as model:
        model.engine_config = OPTIONS.applied(model.engine_config, model.config.text)
        return {answer.key: answer for answer in model.answer(jobs(tmp_path_factory.mktemp("alone")))}


def test_the_same_answers_and_one_killed_in_the_middle(alone, tmp_path):
    asked, found, lines = jobs(tmp_path), {}, []
    with Replicas((None, None), {"path_or_id": "shapes"}, OPTIONS, log=lines.append) as replicas:
        for answer in replicas.answer(iter(asked)):
            assert answer.key not in found
            found[answer.key] = answer
            if len(found) == 5:
                os.kill(replicas.pids[0], signal.SIGKILL)
        stages = replicas.stages
    assert any("has died" in line for line in lines)
    assert found.keys() == alone.keys()
    for key, answer in found.items():
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
