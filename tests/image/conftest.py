"""Fixtures of the image tests."""

from __future__ import annotations

import pytest

from tests.image.pools import Gate


@pytest.fixture
def gate(tmp_path):
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()
