"""A stand-in for the model: the command line is tested without jax."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from jaxphoton.config import EngineConfig
from jaxphoton.image.errors import ImageError
from jaxphoton.models.moondream.config import ModelConfig
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.models.registry import named_family
from jaxphoton.requests.answer import Answer, Result
from jaxphoton.weights.checkpoint import WeightsError


class FakeModel:
    """Answers with what it was asked; `calls` and `loaded` hold the arguments, `adapters` what each call named. Files
    named bad* are bad images."""

    def __init__(self):
        self.calls: list[tuple] = []
        self.loaded: dict = {}
        self.adapters: list[str | None] = []
        self.engine_config = EngineConfig()
        self.family = MoondreamFamily(ModelConfig())
        self.config = self.family.config

    def from_pretrained(self, path_or_id, **options):
        if path_or_id == "broken":
            raise WeightsError("no such tensor")
        self.loaded = {"path_or_id": path_or_id, **options}
        return self

    def start(self):
        pass

    def observe(self, launches):
        return nullcontext()

    def answer(self, jobs):
        """In reverse order within each pair, as a busy engine might finish."""
        waiting = []
        for job in jobs:
            waiting.insert(0, self._one(job))
            if len(waiting) == 2:
                yield from waiting
                waiting = []
        yield from waiting

    def _one(self, job):
        name = Path(job.image).name if isinstance(job.image, str) else job.name
        if name.startswith("bad"):
            return Answer(job.key, error=ImageError(job.name, "not-an-image", "not an image"))
        self.calls += [(name, ask.skill, dict(ask.arguments), dict(ask.settings or {})) for ask in job.asks]
        self.adapters += [ask.adapter for ask in job.asks]
        if any(len(str(ask.arguments)) > 130 for ask in job.asks):
            return Answer(job.key, error=ValueError("the question is too long"))
        results = tuple(self._result(name, number, ask) for number, ask in enumerate(job.asks))
        return Answer(job.key, results, None, (4, 6), ("rotated",) if name.startswith("turned") else ())

    def _result(self, name, number, ask):
        result = Result(
            {
                "caption": {"caption": f"Ein schöner Kreis: {Path(name).stem}" + (f" {number}" if number else "")},
                "query": {"answer": "red"},
                "detect": {"objects": [{"x_min": 0.1, "y_min": 0.2, "x_max": 0.3, "y_max": 0.4}]},
                "point": {"points": [{"x": 0.5, "y": 0.25}]},
            }[ask.skill]
        )
        if ask.arguments.get("reasoning"):
            result["reasoning"] = {"text": "hm", "grounding": []}
        result.tokens, result.finish_reason = (1, 2, 3), "stop"
        return result

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def model(monkeypatch) -> FakeModel:
    """The fake, in place of the modules that would load jax; any name but "missing" is a model."""
    fake = FakeModel()
    for name, attribute, value in (
        ("jaxphoton.api", "Model", fake),
        ("jaxphoton.weights.load", "WeightsError", WeightsError),
    ):
        module = ModuleType(name)
        setattr(module, attribute, value)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("jaxphoton.weights.hub.resolve", lambda name, revision=None: _folder(name))
    # Moondream 3 can do all that the command line knows, the smallest model less.
    monkeypatch.setattr(
        "jaxphoton.weights.hub.check",
        lambda path: named_family("moondream-0.5b" if path.name == "small" else "moondream3"),
    )
    monkeypatch.setattr("jaxphoton.batch.model.model_digest", lambda path: f"digest of {path}")
    return fake


def _folder(name: str) -> Path:
    if name == "missing":
        raise WeightsError("no such model")
    return Path(name)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Images in two levels, a text file and a hidden image."""
    root = tmp_path / "photos"
    for name in ("b.png", "a.JPG", "sub/c.webp", ".hidden.png", ".cache/d.png"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4)).save(path)
    (root / "notes.md").write_text("no image", encoding="utf-8")
    return root
