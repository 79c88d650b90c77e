"""Adapters as trees of parameters: from adapters into slots, and back."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxphoton import functional as fn
from jaxphoton.layers.adapters import Pairs
from jaxphoton.models.adapters import Adapter
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.models.naming import WeightsError
from jaxphoton.weights.adapters import load_adapter, save_adapter
from tests.models.moondream.conftest import REGION
from tests.models.moondream.drawn import drawn
from tests.models.moondream.test_network import EXPERTS, TEXT, VISION


@pytest.fixture(params=[TEXT, EXPERTS], ids=["dense", "experts"])
def config(request):
    from jaxphoton.models.moondream.config import ModelConfig

    return ModelConfig(vision=VISION, text=request.param, region=REGION)


def test_slots_give_back_what_was_put_into_them(config, tmp_path):
    held = [Adapter.of(f"number {seed}", drawn(config.text, seed, 4).pairs, "") for seed in (1, 2)]
    pool = fn.adapter_pool(config, held)
    for slot, adapter in enumerate(held):
        again = fn.adapter_of(config, pool, "again", slot)
        assert (again.name, again.digest) == ("again", adapter.digest)
    family = MoondreamFamily(config)
    save_adapter(tmp_path / "mine.safetensors", again, family)
    assert load_adapter(tmp_path / "mine.safetensors", family).digest == held[-1].digest


def test_pairs_that_add_nothing_are_left_out(config):
    part = Adapter.of("part", drawn(config.text, 1, 4, "blocks.1.attn").pairs, "")
    assert fn.adapter_of(config, fn.adapter_pool(config, [part]), "part").pairs.keys() == part.pairs.keys()
    with pytest.raises(WeightsError, match="no pairs"):
        fn.adapter_of(config, fn.new_adapter(config, jax.random.key(0), 4), "new")


def test_smaller_ranks_are_padded_and_a_new_adapter_has_its_own(config):
    pool = fn.adapter_pool(config, [drawn(config.text, 1, 2), drawn(config.text, 2, 4)], rank=8)
    new = fn.new_adapter(config, jax.random.key(0), 8, jnp.bfloat16)
    for tree, slots, dtype in ((pool, 2, jnp.float32), (new, 1, jnp.bfloat16)):
        assert tree.qkv.a.shape[1:3] == (slots, 8) and tree.qkv.a.dtype == dtype
    assert new.proj_input is None
    pairs = jax.tree.leaves(new, is_leaf=lambda node: isinstance(node, Pairs))
    assert all(np.any(pair.a) and not np.any(pair.b) for pair in pairs)


def test_an_adapter_of_another_model_is_refused(config):
    other = drawn(EXPERTS if config.text is TEXT else TEXT, 1, 4)
    with pytest.raises(WeightsError, match="does not fit"):
        fn.adapter_pool(config, [other])
