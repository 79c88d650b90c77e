"""A stand-in for the model: the command line is tested without jax."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image


class ImageError(ValueError):
    """Stands for jaxphoton.image.decode.ImageError."""


class WeightsError(ValueError):
    """Stands for jaxphoton.weights.load.WeightsError."""


class FakeModel:
    """Answers with what it was asked; `calls` and `loaded` hold the arguments. Files named bad* are bad images."""

    def __init__(self):
        self.calls: list[tuple] = []
        self.loaded: dict = {}

    def from_pretrained(self, path_or_id, **options):
        if path_or_id == "missing":
            raise WeightsError("no such model")
        self.loaded = {"path_or_id": path_or_id, **options}
        return self

    def _open(self, image, *call):
        if Path(image).name.startswith("interrupt"):
            raise KeyboardInterrupt
        if not Path(image).is_file() or Path(image).name.startswith("bad"):
            raise ImageError(f"{image}: not an image")
        self.calls.append((Path(image).name, *call))

    def caption(self, image, length="normal", settings=None):
        self._open(image, length, settings)
        return {"caption": f"Ein schöner Kreis: {Path(image).stem}", "finish_reason": "stop"}

    def query(self, image, question, reasoning=False, settings=None):
        if len(question) > 100:
            raise ValueError("the question is too long")
        self._open(image, question, reasoning, settings)
        return {"answer": "red"} | ({"reasoning": {"text": "hm", "grounding": []}} if reasoning else {})

    def detect(self, image, object, settings=None):
        self._open(image, object, settings)
        return {"objects": [{"x_min": 0.1, "y_min": 0.2, "x_max": 0.3, "y_max": 0.4}]}

    def batch(self, task, images, settings=None, **arguments):
        """In reverse order within each pair, as a busy engine might finish."""
        items = list(images)
        for start in range(0, len(items), 2):
            for key, image in reversed(items[start : start + 2]):
                try:
                    result, error = getattr(self, task)(image, **arguments, settings=settings), None
                except ImageError as fault:
                    result, error = None, fault
                yield key, result, error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def point(self, image, object, settings=None):
        self._open(image, object, settings)
        return {"points": [{"x": 0.5, "y": 0.25}]}


@pytest.fixture
def model(monkeypatch) -> FakeModel:
    """The fake, in place of the modules that would load jax or decode images."""
    fake = FakeModel()
    for name, attribute, value in (
        ("jaxphoton.api", "Moondream", fake),
        ("jaxphoton.image.decode", "ImageError", ImageError),
        ("jaxphoton.weights.load", "WeightsError", WeightsError),
    ):
        module = ModuleType(name)
        setattr(module, attribute, value)
        monkeypatch.setitem(sys.modules, name, module)
    return fake


@pytest.fixture
def folder(tmp_path) -> Path:
    """Images in two levels, a text file and a hidden image."""
    root = tmp_path / "photos"
    for name in ("b.png", "a.JPG", "sub/c.webp", ".hidden.png", ".cache/d.png"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    (root / "notes.txt").write_text("no image", encoding="utf-8")
    return root
