from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxphoton.models.moondream.config import ModelConfig, RegionConfig, TextConfig, VisionConfig
from jaxphoton.models.moondream.params import Params, abstract
from tests.prompt.conftest import tokenizer, tokenizer_file  # noqa: F401 (fixtures)

REGION = RegionConfig(dim=32, coord_feat_dim=16, coord_out_dim=64, size_feat_dim=16, size_out_dim=128, inner_dim=24)


@pytest.fixture(scope="session")
def random_params():
    """Parameters of a tiny model of dim 32, all leaves drawn from a normal distribution."""

    def make(vision: VisionConfig, text: TextConfig, dtype="float32") -> Params:
        shapes = abstract(ModelConfig(vision=vision, text=text, region=REGION), dtype)
        leaves, tree = jax.tree.flatten(shapes)
        random = np.random.default_rng(0)
        return jax.tree.unflatten(tree, [jnp.asarray(random.normal(0, 0.2, s.shape), s.dtype) for s in leaves])

    return make
