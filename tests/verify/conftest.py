from __future__ import annotations

import jax.numpy as jnp
import pytest

from jaxphoton.models.moondream.checks.cases import Bench
from jaxphoton.verify.golden import GoldenModel, open_golden
from jaxphoton.weights.load import load_model


@pytest.fixture(scope="session")
def md2_golden(goldens) -> GoldenModel:
    return next(model for model in open_golden(goldens) if model.name == "md2-tiny")


@pytest.fixture(scope="session")
def md2_bench(md2_golden) -> Bench:
    family, params = load_model(md2_golden.weights, jnp.float32)
    return Bench(md2_golden, params, family)


@pytest.fixture(scope="session")
def md3_bench(goldens) -> Bench:
    golden = next(model for model in open_golden(goldens) if model.name == "md3-tiny")
    family, params = load_model(golden.weights, jnp.float32)
    return Bench(golden, params, family)
