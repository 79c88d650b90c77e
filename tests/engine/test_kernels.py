"""The engine on the Triton kernels, interpreted: what the oracle gives, as on the plain forms.

`--interpreted N` runs schedules 0 to N - 1 on each form of a step.
"""

from __future__ import annotations

import dataclasses

import pytest

from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.device import Device
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.oracle.oracle import Oracle
from kernels_pallas.dispatch import KernelUnavailable
from tests.engine import tiny
from tests.engine.comparison import Comparison
from tests.engine.schedules import schedule
from tests.engine.tiny import Loop, Poisoned

# The kernels take head dims from 16 on; the parameters have the same shapes.
CONFIG = dataclasses.replace(tiny.CONFIG, text=dataclasses.replace(tiny.CONFIG.text, n_heads=2, n_kv_heads=1))
ENGINE = dataclasses.replace(tiny.ENGINE, prefill_lengths=(16,), vision=((3, 9),), kernels="interpret")


# Each interpreted program takes seconds to compile: steps of one row are those of the fused form.
@pytest.fixture(
    scope="module",
    params=[pytest.param(("xla", (8,)), marks=pytest.mark.slow, id="xla"), pytest.param(("fused", (1, 8)), id="fused")],
)
def interpreted(request) -> Programs:
    form, rows = request.param
    engine = dataclasses.replace(ENGINE, step_form=form, step_rows=rows)
    return Programs(tiny.parameters(), MoondreamFamily(CONFIG), engine)


def test_interpreted_kernels_give_what_the_oracle_gives(interpreted, pytestconfig):
    comparison = Comparison(Oracle(tiny.parameters(), MoondreamFamily(CONFIG)))
    loop = Loop(interpreted, Device(Poisoned(interpreted)))
    count = pytestconfig.getoption("--interpreted")
    for number in range(count):
        sequences, _ = loop.run(schedule(number))
        for sequence in sequences:
            comparison.compare(sequence.request, sequence.tokens, sequence.finish_reason)
    assert comparison.compared > count
    assert len(comparison.near_ties) <= comparison.compared // 1000, comparison.near_ties


def test_kernels_that_cannot_run_here_are_refused():
    with pytest.raises(KernelUnavailable, match="NVIDIA"):
        Programs(tiny.parameters(), MoondreamFamily(CONFIG), dataclasses.replace(ENGINE, kernels="triton"))


def test_kernels_that_do_not_fit_the_model_are_refused():
    with pytest.raises(KernelUnavailable, match="head"):
        Programs(tiny.parameters(), tiny.FAMILY, ENGINE)
