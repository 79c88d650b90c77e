"""Floors, what binds, and where batches stop paying."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.measure import roofline
from jaxphoton.measure.chips import CHIPS, Chip, find_chip, read_benchmark
from jaxphoton.measure.cost_model import Cost, parameter_count, step_cost
from jaxphoton.models.registry import named_family

MOONDREAM2 = named_family("moondream2")
BENCHMARK = {
    "device": {"device": "Some GPU", "copy_gb_s": 4300.0, "matmul_tflop_s": 700.0},
    "step": {
        "context": 850,
        "parameters": parameter_count(MOONDREAM2),
        "steps": [{"rows": 1, "device_ms": 1.3}, {"rows": 8, "device_ms": 1.4}],
        "ticks": [{"rows": 1, "device_ms": 1.3, "depth2_ms": 1.5}],
    },
    "encode": {"programs": [{"program": "encode 4 x 10", "ms": 80.0}, {"program": "prefill 4 x 128", "ms": 3.0}]},
}


@given(flops=st.integers(1, 10**15), size=st.integers(1, 10**12))
def test_a_floor_is_the_larger_time_and_names_its_resource(flops, size):
    chip = Chip("c", None, bandwidth=1e12, bfloat16=1e14, float32=1e13)
    floor = roofline.floor_of("part", Cost(flops, size), chip, "bfloat16")
    assert floor.seconds == max(size / 1e12, flops / 1e14)
    assert floor.bound == ("compute" if floor.cost.intensity > 100 else "bandwidth") or floor.cost.intensity == 100


def test_images_are_bound_by_compute_and_steps_by_bandwidth():
    parts = {p.name: p for p in roofline.floors(MOONDREAM2, find_chip("H200"), "bfloat16", (1, 32), 850)}
    assert {name for name, part in parts.items() if part.bound == "bandwidth"} == {
        "prefill 1 x 32",
        "step 1",
        "boxes 1",
        "step 32",
        "boxes 32",
    }
    assert [n for n in parts if n.startswith("encode")] == [f"encode 1 x {crops}" for crops in (1, 5, 10, 13)]


@pytest.mark.parametrize("family", ["moondream2", "moondream-0.5b", "moondream3"])
@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
def test_batches_give_more_tokens_and_each_row_waits_longer(chip, family):
    steps = roofline.batches(named_family(family), chip, "bfloat16", 850)
    assert [step.rows for step in steps] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    for less, more in zip(steps, steps[1:], strict=False):
        assert more.tokens_per_s > less.tokens_per_s and more.step_s > less.step_s


@pytest.mark.parametrize("context", [1, 100, 850, 2000])
def test_knees_are_where_the_balance_tips(context):
    chip = find_chip("H100")

    def cost(rows: int) -> Cost:
        return step_cost(MOONDREAM2, "bfloat16", rows, context, readout=False)

    knee = roofline.knee(MOONDREAM2, chip, "bfloat16", context)
    kv = knee.kv_over_weights
    assert kv is not None and cost(kv).kv_bytes > cost(kv).weight_bytes
    assert cost(kv - 1).kv_bytes <= cost(kv - 1).weight_bytes
    compute = knee.compute_over_bytes
    if compute is None:
        assert context >= 100  # attention alone has an intensity of one operation a byte
    else:
        bound = [roofline.floor_of("", cost(rows), chip, "bfloat16").bound for rows in (compute - 1, compute)]
        assert bound == ["bandwidth", "compute"]


def test_a_benchmark_is_compared_on_its_own_figures(tmp_path):
    path = tmp_path / "gpu_check.json"
    path.write_text(json.dumps(BENCHMARK), encoding="utf-8")
    benchmark = read_benchmark(path)
    found = {line.floor.name: line for line in roofline.compare(MOONDREAM2, "bfloat16", benchmark)}
    assert set(found) == {"encode 4 x 10", "prefill 4 x 128", "step 1", "step 8", "tick 1"}
    assert round(found["step 1"].times, 1) == 2.0 and found["tick 1"].times > found["step 1"].times
    assert found["encode 4 x 10"].floor.seconds == pytest.approx(4 * 6.717e12 / 700e12, rel=0.01)


def test_a_half_finished_benchmark_will_do_and_anything_else_will_not(tmp_path):
    path = tmp_path / "gpu_check.json"
    path.write_text(json.dumps({"device": BENCHMARK["device"], "step": {"error": "hung"}}), encoding="utf-8")
    benchmark = read_benchmark(path)
    assert benchmark.parameters is None and benchmark.seconds == {}
    for text, fault in (("{}", "device"), ("[1]", "not a benchmark"), ("nonsense", "not a benchmark")):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=fault):
            read_benchmark(path)
    with pytest.raises(ValueError, match="nowhere"):
        read_benchmark(tmp_path / "nowhere.json")


@pytest.mark.parametrize("name", ["steep 1", "step", "encode x 3", ""])
def test_an_unknown_part_is_named(name):
    with pytest.raises(ValueError, match="no costs are known"):
        roofline.cost_of(name, MOONDREAM2, "bfloat16", 850)


def test_chips_are_found_however_they_are_written():
    assert find_chip("nvidia h200").name == find_chip("H200").name == "H200"
    assert find_chip("rtx-4090") is find_chip("RTX 4090")
    with pytest.raises(ValueError, match="'H900'.*H200"):
        find_chip("H900")


def test_chips_are_in_order_and_of_sane_figures():
    sizes = [chip.memory for chip in CHIPS if chip.memory is not None]
    assert sizes == sorted(sizes) and len(sizes) == len({chip.name for chip in CHIPS}) == len(CHIPS)
    for chip in CHIPS:
        # From slow memory to fast: between 50 and 500 operations a byte on every GPU there is.
        assert 50 < chip.bfloat16 / chip.bandwidth < 500
        assert chip.float32 is not None and chip.float32 < chip.bfloat16
        assert chip.source == "datasheet" and float(chip.capability) >= 8


def test_a_rate_that_was_not_measured_is_not_made_up(tmp_path):
    path = tmp_path / "gpu_check.json"
    path.write_text(json.dumps(BENCHMARK), encoding="utf-8")
    with pytest.raises(ValueError, match="float32 rate of Some GPU"):
        read_benchmark(path).chip.rate("float32")
