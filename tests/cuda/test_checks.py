"""Each check refuses what it is there for, and names it."""

from __future__ import annotations

import dataclasses

import pytest

from scripts.cuda.checks import Limits, faults, kernels_per_layer
from scripts.cuda.evidence import Evidence
from scripts.cuda.table import rows_of

LIMITS = Limits(one_graph=True, per_layer=10, around=5, temporary=1000, operations=1.5, reads=1.02, share=0.28)
USAGE = {
    "kernel": "output_product", "launches": 2, "blocks": 256, "threads": 128, "registers": 64, "spilled": 0,
    "shared": 61440, "occupancy": 0.1875, "waves": 0.646,
}  # fmt: skip
GOOD = Evidence(
    "step 8 rows", "h200", 2, 1.0, top={"kCommandBuffer": 1}, kernels=25, temporary=1000, aliased=640, pool=600,
    weight_reads=1.0, weight_share=0.27, usage=(USAGE,),
)  # fmt: skip


def test_what_is_within_its_limits_passes():
    assert faults(GOOD, LIMITS) == []
    assert faults(dataclasses.replace(GOOD, weight_share=0.4), LIMITS) == []  # of two layers and a vocabulary


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"error": "RESOURCE_EXHAUSTED: Shared memory"}, ("does not compile", "Shared memory")),
        ({"top": {"kCommandBuffer": 2}}, ("not one command buffer", "2 kCommandBuffer")),
        ({"top": {"kCommandBuffer": 1, "kWhile": 1}, "stray": ("kWhile while.3",)}, ("kWhile while.3",)),
        ({"top": {}}, ("no thunk",)),
        ({"pool_copies": ("bf16[2,9] copy.3",)}, ("key/value pool", "copy.3")),
        ({"weight_copies": ("bf16[8,9] transpose.1",)}, ("weights", "transpose.1")),
        ({"aliased": 599}, ("600 bytes", "only 599")),
        ({"kernels": 26, "busiest": ("9 x wrapped_slice",)}, ("26 kernels, at most 25", "wrapped_slice")),
        ({"weight_share": 0.31, "layers": 24}, ("0.310 times their bytes in bfloat16",)),
        ({"weight_reads": 1.5, "read_again": ("in_w, by 2 kernels",)}, ("1.50 times", "in_w")),
        ({"usage": (USAGE | {"spilled": 24},)}, ("spilled", "output_product: 24 bytes")),
        ({"temporary": 1001, "largest": ("f32[8,51200] fusion.2",)}, ("temporaries", "fusion.2")),
        ({"operations": 16 * 10**9, "needed": 10**10}, ("16 Gop", "1.50 x 10")),
    ],
)
def test_what_is_not_is_refused_with_the_offender_named(change, words):
    (fault,) = faults(dataclasses.replace(GOOD, **change), LIMITS)
    assert all(word in fault for word in words)


ON_MESH = Limits(sums=(2, 1), gathers=1, sent=1000)
SPREAD = dataclasses.replace(
    GOOD, devices=4, collectives={"all-gather": 1, "all-reduce": 5}, most_sent=1000, split=4000, held=1050
)


def test_a_program_of_a_mesh_has_the_collectives_and_the_weights_that_it_should():
    assert faults(SPREAD, ON_MESH) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"collectives": {"all-reduce": 5}}, ("{'all-reduce': 5}", "'all-gather': 1")),
        ({"collectives": {"all-gather": 1, "all-reduce": 6}, "sent": ("sum.6",)}, ("'all-reduce': 5", "sum.6")),
        ({"collectives": {"all-gather": 1, "all-reduce": 5, "all-to-all": 1}}, ("all-to-all",)),
        ({"most_sent": 1001, "sent": ("all-gather of a pool",)}, ("a collective of", "all-gather of a pool")),
        ({"held": 1051}, ("1051 of 4000 bytes", "4 share")),
    ],
)
def test_what_a_mesh_should_not_have_is_named(change, words):
    (fault,) = faults(dataclasses.replace(SPREAD, **change), ON_MESH)
    assert all(word in fault for word in words)


def test_kernels_a_layer_come_from_two_depths_of_one_program():
    deep = dataclasses.replace(GOOD, layers=24, kernels=245)
    failed = dataclasses.replace(GOOD, kernels=0, error="no memory")
    elsewhere = dataclasses.replace(GOOD, chip="a100", kernels=0)
    assert kernels_per_layer(deep, [deep, failed, elsewhere]) is None
    assert kernels_per_layer(deep, [failed, elsewhere, GOOD]) == 10.0


def test_the_table_has_a_line_a_program_and_a_verdict():
    lines = rows_of([GOOD, dataclasses.replace(GOOD, chip="a100", error="RESOURCE_EXHAUSTED: memory")])
    assert "kCommandBuffer" in lines[2] and lines[2].endswith("ok")
    assert lines[1].endswith("does not compile") and lines[-1].startswith("1 of 2")


def test_the_table_shows_what_gpus_of_a_mesh_send_and_hold():
    assert not any("all-reduces" in line for line in rows_of([GOOD]))
    spread = dataclasses.replace(SPREAD, program="mesh-step on model=4", split=4 * 10**9, held=10**9, most_sent=10**6)
    line = [line for line in rows_of([GOOD, spread]) if line.startswith("mesh-step on model=4")][-1]
    assert line.split()[3:] == ["2", "4", "5", "1", "1.00", "4.000", "1.000", "0.000"]


def test_the_table_shows_what_our_kernels_take_once():
    again = dataclasses.replace(GOOD, program="step 9 rows", usage=(USAGE | {"kernel": "output_product__1"},))
    other = dataclasses.replace(GOOD, chip="a100")
    lines = [line for line in rows_of([GOOD, again, other]) if line.startswith("output_product")]
    assert len(lines) == 2 and "a100" in lines[0] and "h200" in lines[1]
    assert lines[1].split()[2:9] == ["256", "128", "64", "0", "61440", "0.19", "0.65"]


def test_a_program_of_one_row_has_limits_of_its_own():
    one = dataclasses.replace(GOOD, program="step 1 rows", layers=24, kernels=24 * 14 + 30)
    assert not faults(one) and faults(dataclasses.replace(one, program="step 2 rows"))
