"""Paged attention: the kernel equals the reference, the reference equals softmax written out, bad input is named."""

from __future__ import annotations

import dataclasses
import functools
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels_pallas.dispatch import KernelUnavailable, Target, overflows
from kernels_pallas.paged_attention import paged_attention, triton
from kernels_pallas.paged_attention.cases import REAL, SMALL, Case

H200 = Target("cuda", 90, 132)
A100 = Target("cuda", 80, 108)
named = pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)


@functools.partial(jax.jit, static_argnames=("layer", "backend", "splits"))
def run(arguments, layer, backend, splits=None):
    return paged_attention(**arguments, layer=layer, backend=backend, splits=splits)


def error(actual: jax.Array | np.ndarray, expected: jax.Array | np.ndarray) -> float:
    """max |a - b| / max |b|; NaN if either has one."""
    a, b = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    return float(np.max(np.abs(a - b)) / max(np.max(np.abs(b)), 1e-30))


def assert_kernel_equals_reference(case: Case, arguments: dict, splits: int | None) -> None:
    expected = run(arguments, case.layer, "reference")
    actual = run(arguments, case.layer, "interpret", splits)
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    assert error(actual, expected) <= (2e-6 if case.dtype == "float32" else 1e-2)


@named
def test_kernel_equals_reference(case):
    assert_kernel_equals_reference(case, case.make(1), 3)


@pytest.mark.parametrize("name", ["grouped_by_12", "bfloat16", "float8"])
def test_unsplit_kernel_equals_reference(name):
    case = next(case for case in SMALL if case.name == name)
    assert_kernel_equals_reference(case, case.make(1), 1)


@pytest.mark.smoke
def test_kernel_equals_reference_on_every_version():
    assert_kernel_equals_reference(SMALL[0], SMALL[0].make(0), None)


@named
def test_reference_is_softmax_over_the_visible_entries(case):
    arguments = case.make(2)
    q, k_pool, v_pool = (np.asarray(arguments[name], np.float64) for name in ("q", "k_pool", "v_pool"))
    tables = np.asarray(arguments["tables"])
    k_scale, v_scale = (
        float(arguments[name][case.layer]) if name in arguments else 1.0 for name in ("k_scale", "v_scale")
    )
    expected = np.zeros_like(q)
    for row, length in enumerate(case.lengths):
        gap_end = case.prefix + -case.prefix % case.page_size
        seen = [s for s in range(length) if not case.prefix <= s < gap_end]
        places = [(case.layer, tables[row, s // case.page_size], s % case.page_size) for s in seen]
        for head in range(case.heads if seen else 0):
            kv_head = head // (case.heads // case.kv_heads)
            keys, values = (np.stack([pool[*place, kv_head] for place in places]) for pool in (k_pool, v_pool))
            scores = keys @ q[row, head] * k_scale * case.head_dim**-0.5
            weights = np.exp(scores - scores.max())
            expected[row, head] = weights / weights.sum() @ values * v_scale
    for backend in ("reference", "loop"):
        assert error(run(arguments, case.layer, backend), expected) <= (2e-6 if case.dtype == "float32" else 1e-2)


PAGE, WIDTH, ROWS = 8, 5, 3
ROOM = PAGE * WIDTH
SHAPE = Case("random", 8, 2, 128, (ROOM,) * ROWS, page_size=PAGE, dtype="float32")
lengths_of_rows = st.lists(
    st.sampled_from([0, 1, PAGE - 1, PAGE, PAGE + 1, ROOM - 1, ROOM]) | st.integers(0, ROOM),
    min_size=ROWS,
    max_size=ROWS,
)
prefixes_of_rows = st.lists(st.integers(0, ROOM), min_size=ROWS, max_size=ROWS)


@given(lengths=lengths_of_rows, prefixes=prefixes_of_rows, splits=st.sampled_from([1, 3]), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_any_lengths_prefixes_and_page_orders(lengths, prefixes, splits, seed):
    """Padding gaps anywhere, over a row's last entries too; what nobody sees is NaN."""
    arguments = {name: np.array(value) for name, value in SHAPE.make(seed).items()}
    seen = np.zeros((SHAPE.pages, PAGE), bool)
    for row, (length, prefix) in enumerate(zip(lengths, prefixes, strict=True)):
        gap_end = prefix + -prefix % PAGE
        entries = np.array([s for s in range(length) if not prefix <= s < gap_end], int)
        seen[arguments["tables"][row, entries // PAGE], entries % PAGE] = True
    # Outside what is seen there is NaN, and behind a row's end the table may name any page.
    for name in ("k_pool", "v_pool"):
        arguments[name][:, ~seen] = np.nan
    behind = np.arange(WIDTH)[None] >= -(-np.array(lengths) // PAGE)[:, None]
    strangers = np.random.default_rng(seed).integers(0, SHAPE.pages, (ROWS, WIDTH), dtype=np.int32)
    arguments["tables"] = np.where(behind, strangers, arguments["tables"])
    arguments |= {name: np.array(value, np.int32) for name, value in (("lengths", lengths), ("prefixes", prefixes))}
    expected = run(arguments, SHAPE.layer, "reference")
    assert np.isfinite(expected).all()
    for backend in ("interpret", "loop"):
        assert error(run(arguments, SHAPE.layer, backend, splits), expected) <= 2e-6
    for row, length in enumerate(lengths):
        if length == 0:
            assert not np.asarray(expected)[row].any()


def test_unseen_entries_hold_nan():
    """The cases mean what they say: page 0, unused entries and the padding gap."""
    arguments = SMALL[2].make(0)
    assert np.isnan(arguments["k_pool"][:, 0]).all() and np.isnan(arguments["v_pool"][:, 0]).all()
    page = int(arguments["tables"][0, 1])
    np.testing.assert_array_equal(np.isnan(arguments["v_pool"][1, page, :, 0, 0]), [4 <= s for s in range(16)])


def abstract_device():
    """jax from 0.11 on asks which GPU it lowers for; before, there is nothing to say."""
    if jax.__version_info__ < (0, 11):
        return nullcontext()
    from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

    return use_abstract_mesh(AbstractMesh((1,), ("x",), abstract_device=AbstractDevice("NVIDIA H200", 132, "cuda")))


@pytest.mark.smoke
@pytest.mark.parametrize("case", [*REAL, *SMALL], ids=lambda case: case.name)
def test_kernel_lowers_for_cuda(case):
    def call(arguments):
        return paged_attention(**arguments, layer=case.layer, backend="triton", target=H200)

    with abstract_device():
        lowered = jax.jit(call).trace(case.abstract()).lower(lowering_platforms=("cuda",))
    assert "paged_attention" in lowered.as_text()


def test_layers_share_one_kernel():
    """The layer is an operand: the compiler sees the same kernel for each."""

    def call(arguments):
        return [paged_attention(**arguments, layer=layer, backend="triton", target=H200, splits=1) for layer in (0, 1)]

    with abstract_device():
        text = jax.jit(call).trace(SMALL[0].abstract()).lower(lowering_platforms=("cuda",)).as_text()
    calls = [line for line in text.splitlines() if "ir =" in line]
    kernels = {line.split("backend_config")[-1].split("operand_layouts")[0] for line in calls}
    assert (len(calls), len(kernels)) == (2, 1)


def abstract(case: Case, **changes) -> dict:
    return dataclasses.replace(case, **changes).abstract()


@pytest.mark.parametrize(
    ("target", "changes", "reason"),
    [
        (H200, {"head_dim": 80}, "head dims"),
        (A100, {"dtype": "bfloat16", "kv_dtype": "float8_e4m3fn"}, "float8 needs compute capability 8.9"),
        (Target("cpu"), {}, "NVIDIA"),
    ],
)
def test_what_the_kernel_cannot_do_is_said(target, changes, reason):
    arguments = abstract(SMALL[0], **changes)
    with pytest.raises(KernelUnavailable, match=reason):
        jax.eval_shape(lambda a: paged_attention(**a, layer=0, backend="triton", target=target), arguments)
    jax.eval_shape(lambda a: paged_attention(**a, layer=0, target=target), arguments)


@pytest.mark.parametrize(("pages", "refused"), [(2**16, False), (2**16 + 1, True), (2**17, True), (2**17 + 1, False)])
def test_one_byte_pools_whose_offsets_overflow_are_refused(pages, refused):
    pool = jax.ShapeDtypeStruct((1, pages, 16, 32, 64), jnp.float8_e4m3fn)
    assert any("overflow" in reason for reason in overflows((pool, pool))) == refused


FLOAT8 = next(case for case in SMALL if case.name == "float8")


@pytest.mark.parametrize(
    ("case", "layer", "changes", "message"),
    [
        (SMALL[0], 2, {}, "layer 2 of 2"),
        (SMALL[0], 0, {"q": ((1, 4, 64), jnp.float16)}, "bfloat16 or float32"),
        (SMALL[0], 0, {"q": ((1, 4, 64), jnp.bfloat16)}, "do not go with"),
        (SMALL[0], 0, {"q": ((1, 6, 64), jnp.float32)}, "6 query heads"),
        (SMALL[0], 0, {"v_pool": ((2, 7, 16, 4, 32), jnp.float32)}, "two equal"),
        (SMALL[0], 0, {"lengths": ((2,), jnp.int32)}, "1 rows"),
        (SMALL[0], 0, {"prefixes": ((1,), jnp.float32)}, "int32"),
        (SMALL[0], 0, {"k_scale": ((2,), jnp.float32), "v_scale": ((2,), jnp.float32)}, "scales go with"),
        (FLOAT8, 0, {"k_scale": ((3,), jnp.float32)}, "need k_scale and v_scale"),
    ],
)
def test_bad_input_is_named(case, layer, changes, message):
    arguments = case.abstract() | {name: jax.ShapeDtypeStruct(*new) for name, new in changes.items()}
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda a: paged_attention(**a, layer=layer), arguments)


def test_keys_are_split_where_rows_are_few():
    def splits(case: Case) -> int:
        a = case.abstract()
        return triton.choose_splits(a["q"], a["k_pool"], a["tables"], H200.cores)

    by_rows = [splits(case) for case in REAL[:4]]
    assert by_rows == sorted(by_rows, reverse=True) and by_rows[0] >= 8 and by_rows[-1] == 1
    assert splits(dataclasses.replace(REAL[0], lengths=(16,), width=1)) == 1


def test_bytes_count_what_is_visible():
    case = Case("count", 2, 2, 16, (40, 10), prefix=20)
    assert case.bytes() == 2 * (28 + 10) * 2 * 16 * 2 + 2 * 2 * 2 * 16 * 2 + 4 * (3 + 1)
