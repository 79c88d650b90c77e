"""Engines on a mesh with weights in few bits, or keys and values in float8, against those of one device."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxphoton.config import EngineConfig
from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.device import Device
from jaxphoton.layers.mesh import Split
from jaxphoton.models.moondream.config import ModelConfig
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.models.moondream.params import Form, Params
from tests.engine import tiny
from tests.engine.few_bits import mixed, with_text
from tests.engine.schedules import schedule
from tests.engine.test_mesh import mesh_of
from tests.engine.test_mesh_adapters import MODELS
from tests.engine.tiny import Loop, Poisoned

SCHEDULES = 4
ENGINE = dataclasses.replace(tiny.ENGINE, step_rows=(8,), prefill_lengths=(6,), vision=((3, 9),), host_masks=False)


def answers(params: Params, config: ModelConfig, engine: EngineConfig, mesh: str | None = None, kinds=None) -> list:
    """Tokens of a few schedules."""
    family, split = MoondreamFamily(config), None
    if mesh is not None:
        split = Split(mesh_of(mesh), family.network.counts())
        form = Form(kv_scales=params.text.kv_scale is not None)
        params = split.placed(params, family.network.specs(np.float32, form))
    programs = Programs(params, family, engine, split=split)
    loop, kinds = Loop(programs, Device(Poisoned(programs))), () if kinds is None else (kinds,)
    return [s.tokens for number in range(SCHEDULES) for s in loop.run(schedule(number, *kinds))[0]]


def choices(answers: list) -> list:
    return [[(token.id, token.bins) for token in tokens] for tokens in answers]


@pytest.mark.slow  # those of tests/engine/test_mesh_adapters.py are in few bits too, beside the oracle
@pytest.mark.parametrize("model", MODELS)
def test_weights_in_few_bits(model):
    config, mesh, kinds = MODELS[model]
    params = mixed(tiny.drawn(config), config)
    one, several = (answers(params, config, ENGINE, where, kinds) for where in (None, mesh))
    assert choices(one) == choices(several) and sum(map(len, one)) > 20
    for a, b in zip(one, several, strict=True):
        np.testing.assert_allclose([t.logprob for t in a], [t.logprob for t in b], atol=1e-4)


@pytest.mark.slow
def test_keys_and_values_in_float8():
    """Tokens alone: what rounding moves across the border of a float8 is then an eighth of the number."""
    config, mesh, _ = MODELS["moondream2"]
    params = tiny.drawn(config)
    scales = jnp.asarray([[0.5, 0.25], [0.25, 2.0]], jnp.float32)
    params = with_text(params, kv_scale=scales)
    engine = dataclasses.replace(ENGINE, kv_dtype="float8")
    one, several = (choices(answers(params, config, engine, where)) for where in (None, mesh))
    assert one == several and sum(map(len, one)) > 20
