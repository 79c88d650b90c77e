"""The recorded model, loaded from its files."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from safetensors.numpy import load_file

from jaxphoton.files import read_json
from jaxphoton.models.protocol import Family
from jaxphoton.models.smolvlm.reading import beside, config_from_dict
from tests.models.smolvlm.drawn import bound_to


@pytest.fixture(scope="session")
def folder(goldens):
    return goldens / "smolvlm2-tiny"


@pytest.fixture(scope="session")
def config(folder):
    return config_from_dict(beside(folder) | read_json(folder / "config.json", 1 << 20))


@pytest.fixture(scope="session")
def bound(config) -> Family:
    return bound_to(config)


@pytest.fixture(scope="session")
def params(folder, bound):
    from jaxphoton.weights.load import load_params

    return load_params(folder / "model.safetensors", bound, jnp.float32)


@pytest.fixture(scope="session")
def recorded(folder):
    return load_file(folder / "cases.safetensors")
