"""jax's CUDA plugin, in its own folder: fetched once; without it nothing here is compiled, and that is said aloud."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts.cuda.plugin import NoPlugin, install

_missing: list[str] = []


@pytest.fixture(scope="session")
def plugin() -> Path:
    try:
        return install()
    except NoPlugin as error:
        if os.environ.get("CI"):
            raise
        _missing.append(f"nothing was compiled for CUDA: {error}")
        pytest.skip(_missing[0])


def pytest_terminal_summary(terminalreporter) -> None:
    for reason in _missing:
        terminalreporter.write_line(f"WARNING: {reason}", yellow=True)
