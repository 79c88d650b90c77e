"""The life of a model: what closing and dropping give back, whoever does it and whenever."""

from __future__ import annotations

import gc

import jax
import numpy as np
import pytest

from jaxphoton import Moondream
from jaxphoton.config import EngineConfig

PATIENCE = 60.0
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


def test_three_closed_models_leave_nothing_on_the_device(before):
    models = []
    for _ in range(3):
        with load() as model:
            assert model.caption(PICTURE)["caption"]
            assert live_bytes() > before
        assert live_bytes() == before
        models.append(model)  # also while the objects live
    del models, model
    assert live_bytes() == before


def test_three_dropped_models_leave_nothing_on_the_device(before):
    for _ in range(3):
        model = load()
        assert model.caption(PICTURE)["caption"]
        engine = model._front.engine
        del model
        engine._thread.join(PATIENCE)
        assert not engine._thread.is_alive() and live_bytes() == before
