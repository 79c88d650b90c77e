"""What recordings of several families share."""

from __future__ import annotations

import pytest
from safetensors.numpy import load_file


@pytest.fixture(scope="session")
def photos(goldens):
    arrays = load_file(goldens / "images.safetensors")
    return [arrays[f"image{i}.pixels"] for i in range(3)]
