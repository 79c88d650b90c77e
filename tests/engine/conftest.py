"""Programs and an oracle of the tiny model: compiled once for all tests of the engine."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def programs():
    from jaxphoton.engine.compiled import Programs
    from tests.engine import tiny

    return Programs(tiny.parameters(), tiny.FAMILY, tiny.ENGINE)


@pytest.fixture(scope="session")
def fixed_programs():
    """One program of each kind, in which a request's bits do not depend on its company."""
    from jaxphoton.engine.compiled import Programs
    from tests.engine import tiny

    return Programs(tiny.parameters(), tiny.FAMILY, tiny.FIXED)


@pytest.fixture(scope="session")
def oracle():
    from jaxphoton.models.moondream.family import MoondreamFamily
    from jaxphoton.oracle.oracle import Oracle
    from tests.engine import tiny

    return Oracle(tiny.parameters(), MoondreamFamily(tiny.CONFIG))
