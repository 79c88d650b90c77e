"""Which shapes are compiled."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.config import EngineConfig
from jaxphoton.engine.buckets import make_buckets
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.models.moondream.reading import named_config

FAMILY = MoondreamFamily(named_config("moondream2"))

sizes = st.lists(st.integers(1, 40), min_size=1, max_size=5, unique=True).map(lambda some: tuple(sorted(some)))


@given(st.integers(1, 40), sizes, sizes)
def test_every_bucket_is_the_smallest_for_some_number_of_rows_and_any_number_has_one(most, step_rows, prefill_rows):
    step_rows = (*(rows for rows in step_rows if rows < most), max(most, *step_rows))
    config = EngineConfig(max_rows=most, step_rows=step_rows, prefill_rows=prefill_rows)
    buckets = make_buckets(config, FAMILY)
    numbers = range(1, most + 1)
    assert buckets.step == tuple(sorted({next(size for size in step_rows if size >= rows) for rows in numbers}))
    together = [rows for rows in numbers if rows <= max(prefill_rows)]
    needed = {next(size for size in prefill_rows if size >= rows) for rows in together}
    assert {rows for rows, _ in buckets.prefill} == needed
    assert max(images for images, _ in buckets.vision) == max(together)
    assert make_buckets(dataclasses.replace(config, fixed_shapes=True), FAMILY).step == buckets.step[-1:]


@pytest.mark.parametrize("rows, programs", [(32, 17), (8, 16), (1, 10)])
def test_an_engine_of_few_rows_has_few_programs(rows, programs):
    config = EngineConfig(max_rows=rows)
    assert len(make_buckets(config, FAMILY).keys(config)) == programs
