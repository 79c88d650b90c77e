"""Prefill attention: the plain form against its definition in NumPy, the kernel against both."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels_pallas.dispatch import KernelUnavailable, Target
from kernels_pallas.prefix_attention import prefix_attention
from kernels_pallas.prefix_attention.cases import REAL, SMALL, Case, Row

TOLERANCE = {"float32": 2e-6, "bfloat16": 1e-2}
H200 = Target("cuda", 90, 132)
TOKENS, ENTRIES = 20, 60  # of the random batches, which share one compilation
FULL = Row(ENTRIES - TOKENS, TOKENS)
CHUNK = Case("chunk", (Row(21, 30, 21), Row(40, 7, 21)), 32, heads=2, kv_heads=2, head_dim=16, page=4)


@partial(jax.jit, static_argnames=("layer", "backend"))
def attend(*arrays, layer, backend, ends=None, k_scale=None, v_scale=None):
    return prefix_attention(*arrays, layer=layer, backend=backend, ends=ends, k_scale=k_scale, v_scale=v_scale)


def run(case: Case, backend: str, seed: int = 0, ends: np.ndarray | None = None) -> np.ndarray:
    arrays, keywords = case.inputs(seed)
    return np.asarray(attend(*arrays, **keywords, backend=backend, ends=ends), np.float64)


def definition(case: Case, seed: int, ends: Sequence[int] | None = None) -> np.ndarray:
    """One query at a time, in float64, from the words of the contract."""
    (q, k_pool, v_pool, tables, starts, counts, prefixes), keywords = case.inputs(seed)
    out = np.zeros(q.shape, np.float64)
    for row, t in np.ndindex(*q.shape[:2]):
        if t >= counts[row]:
            continue
        position, prefix = int(starts[row]) + t, int(prefixes[row])
        end = prefix if ends is None else int(ends[row])
        visible = range(max(position + 1, end if position < end else 0))
        entries = np.array([p if p < prefix else p + -prefix % case.page for p in visible])
        place = keywords["layer"], tables[row, entries // case.page], entries % case.page
        keys, values = (np.asarray(pool[place], np.float64) for pool in (k_pool, v_pool))
        for head in range(case.heads):
            kv_head = head // (case.heads // case.kv_heads)
            scores = keys[:, kv_head] @ np.asarray(q[row, t, head], np.float64) / np.sqrt(case.head_dim)
            weights = np.exp(scores - scores.max())
            out[row, t, head] = weights @ values[:, kv_head] / weights.sum()
    return out


def assert_near(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert np.all(np.isfinite(actual))
    assert np.max(np.abs(actual - expected)) <= tolerance * np.max(np.abs(expected))


@st.composite
def rows(draw) -> Row:
    """Text, an image prefix, a part of one, text behind one or a whole prompt; any count, none and all included."""
    prefix = draw(st.sampled_from([0, 1, 3, 4, 8, 13, TOKENS, 30]))
    count = draw(st.sampled_from([0, 1, TOKENS]) | st.integers(0, TOKENS))
    # Three entries are the longest padding gap.
    return Row(draw(st.sampled_from([0, prefix]) | st.integers(0, ENTRIES - 3 - count)), count, prefix)


@pytest.mark.parametrize("backend", ["reference", "loop", "interpret"])
@given(batch=st.lists(rows(), min_size=3, max_size=3), seed=st.integers(0, 2**32 - 1))
def test_random_batches_follow_the_definition(backend, batch, seed):
    # The last row fixes the shapes.
    case = Case("random", (*batch, FULL), TOKENS, heads=8, kv_heads=2, head_dim=128, page=4, dtype="float32")
    assert_near(run(case, backend, seed), definition(case, seed), TOLERANCE["float32"])


@pytest.mark.parametrize("backend", ["reference", "loop", "interpret"])
@given(batch=st.lists(rows(), min_size=3, max_size=3), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_both_ways_may_end_elsewhere_than_the_prefix(backend, batch, seed, data):
    case = Case("random", (*batch, FULL), TOKENS, heads=4, kv_heads=2, head_dim=16, page=4, dtype="float32")
    # Up to what the pools hold of a row: nothing but the causal, a part of the queries, or all of them.
    ends = [data.draw(st.sampled_from([0, row.start + row.count // 2, row.start + row.count])) for row in case.rows]
    assert_near(run(case, backend, seed, np.array(ends, np.int32)), definition(case, seed, ends), TOLERANCE["float32"])


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_kernel_equals_reference(case):
    for backend in ("interpret", "loop"):
        assert_near(run(case, backend), run(case, "reference"), TOLERANCE[case.dtype])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_float8_entries_stand_for_their_value_times_the_scale(dtype):
    case = dataclasses.replace(CHUNK, dtype=dtype, kv_dtype="float8_e4m3fn")
    (q, k_pool, v_pool, *where), keywords = case.inputs()
    layer = keywords["layer"]
    k_pool, v_pool = (
        np.asarray(pool, np.float32) * scale[layer]
        for pool, scale in ((k_pool, keywords["k_scale"]), (v_pool, keywords["v_scale"]))
    )
    expected = attend(np.asarray(q, np.float32), k_pool, v_pool, *where, layer=layer, backend="reference")
    assert_near(run(case, "reference"), np.asarray(expected, np.float64), TOLERANCE[dtype])


def test_positions_behind_the_count_are_zero():
    case = dataclasses.replace(CHUNK, rows=(Row(21, 5, 21), Row(0, 0)))
    for backend in ("reference", "loop", "interpret"):
        out = run(case, backend)
        assert np.all(out[0, :5] != 0)
        assert not np.any(out[0, 5:]) and not np.any(out[1])


@pytest.mark.smoke
@pytest.mark.parametrize("case", [CHUNK, SMALL[-3], SMALL[-2], REAL[0]], ids=lambda case: case.name)
def test_kernel_lowers_for_cuda_without_a_gpu(case):
    arrays, keywords = jax.tree.map(np.asarray, case.inputs())
    layer = int(keywords.pop("layer"))
    call = jax.jit(lambda arrays, scales: prefix_attention(*arrays, layer=layer, target=H200, **scales))
    with cuda_device():
        text = call.trace(arrays, keywords).lower(lowering_platforms=("cuda",)).as_text()
    assert "prefix_attention" in text and "triton" in text


def cuda_device() -> AbstractContextManager:
    """What jax from 0.11 on wants to know of the device when it lowers for one that is not there."""
    if not hasattr(jax.sharding, "AbstractDevice"):
        return nullcontext()
    device = jax.sharding.AbstractDevice("NVIDIA H200", 132, "cuda")
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((1,), ("x",), abstract_device=device))


def abstract(case: Case) -> tuple[list[jax.ShapeDtypeStruct], dict]:
    arrays, keywords = case.inputs()
    return [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in arrays], keywords


def call(arrays, keywords, backend: str = "reference", target: Target | None = None) -> None:
    jax.eval_shape(lambda *arrays: prefix_attention(*arrays, backend=backend, target=target, **keywords), *arrays)


@pytest.mark.parametrize(
    ("case", "capability", "fault"),
    [
        (dataclasses.replace(CHUNK, head_dim=72), 90, "head dim 72"),
        (dataclasses.replace(CHUNK, head_dim=8), 90, "head dim 8"),
        (dataclasses.replace(CHUNK, kv_dtype="float8_e4m3fn"), 80, "8.9, this device has 8.0"),
    ],
)
def test_kernel_says_what_it_cannot_do(case, capability, fault):
    arrays, keywords = abstract(case)
    with pytest.raises(KernelUnavailable, match=fault):
        call(arrays, keywords, "triton", Target("cuda", capability))


def test_pools_whose_offsets_would_overflow_are_refused():
    arrays, keywords = abstract(dataclasses.replace(CHUNK, kv_dtype="float8_e4m3fn"))
    layers, _, *entry = arrays[1].shape
    pages = 2**31 // (layers * int(np.prod(entry)))
    for wanted, refused in ((pages, False), (pages + 1, True), (2 * pages, True), (2 * pages + 1, False)):
        pool = jax.ShapeDtypeStruct((layers, wanted, *entry), arrays[1].dtype)
        with pytest.raises(KernelUnavailable, match="2\\^31") if refused else nullcontext():
            call([arrays[0], pool, pool, *arrays[3:]], keywords, "interpret")


@pytest.mark.parametrize(
    ("index", "shape", "dtype", "fault"),
    [
        (0, (2, 32, 2), jnp.bfloat16, "q must be"),
        (0, (2, 32, 3, 16), jnp.bfloat16, "N a multiple of K"),
        (0, (2, 32, 2, 32), jnp.bfloat16, "same H"),
        (0, (2, 32, 2, 16), jnp.float32, "pools must be float32"),
        (0, (2, 32, 2, 16), jnp.float16, "bfloat16 or float32, not float16"),
        (2, (2, 9, 4, 2, 16), jnp.bfloat16, "the pools differ"),
        (3, (1, 14), jnp.int32, "tables must be"),
        (4, (2,), jnp.float32, "starts, counts"),
        (6, (3,), jnp.int32, "prefixes and ends must be"),
    ],
)
def test_arguments_that_do_not_fit_are_named(index, shape, dtype, fault):
    arrays, keywords = abstract(CHUNK)
    arrays[index] = jax.ShapeDtypeStruct(shape, np.dtype(dtype))
    with pytest.raises(ValueError, match=fault):
        call(arrays, keywords)


@pytest.mark.parametrize(
    ("kv_dtype", "keywords", "fault"),
    [
        (None, {"layer": 2}, "layer 2"),
        (None, {"layer": 0, "k_scale": np.ones(2, np.float32)}, "scales are for float8"),
        ("float8_e4m3fn", {"layer": 0}, "need k_scale and v_scale"),
        ("float8_e4m3fn", dict.fromkeys(("k_scale", "v_scale"), np.ones(3, np.float32)) | {"layer": 0}, "need k_scale"),
    ],
)
def test_keywords_that_do_not_fit_are_named(kv_dtype, keywords, fault):
    arrays, _ = abstract(dataclasses.replace(CHUNK, kv_dtype=kv_dtype))
    with pytest.raises(ValueError, match=fault):
        call(arrays, keywords)


def test_work_of_a_case_counts_what_is_visible():
    image = Case("image", (Row(0, 730, 730),), 730)
    assert image.flops() == 4 * 64 * 32 * 730**2
    assert image.bytes() == 4 * 730 * 32 * 64 * 2
    chunk = Case("chunk", (Row(730, 2, 730), Row(0, 0)), 32, kv_heads=8, kv_dtype="float8_e4m3fn")
    assert chunk.flops() == 4 * 64 * 32 * (731 + 732)
    assert chunk.bytes() == 64 * (2 * 2 * 32 * 2 + 2 * 732 * 8)
