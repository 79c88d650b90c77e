"""Kernels are interpreted on small arrays: nearly all the time is XLA's, and its slow passes gain nothing there."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def compiled_in_haste() -> Iterator[None]:
    """LLVM leaves out its costly passes; what XLA itself does with a program stays."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
