"""The attention of a step: the kernel equals the reference, the reference equals its parts one by one, bad input is
named."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxphoton.engine.state import PagedCache, paged_attend
from jaxphoton.layers.rope import rotary_frequencies, rotary_tables, rotate
from jaxphoton.models.protocol import Kernels
from kernels_pallas.dispatch import KernelUnavailable, Target
from kernels_pallas.step_attention import step_attention, triton
from kernels_pallas.step_attention.cases import REAL, SMALL, Case
from tests.kernels.test_paged_attention import abstract_device, error

H200 = Target("cuda", 90, 132)
A100 = Target("cuda", 80, 108)
named = pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)


@functools.partial(jax.jit, static_argnames=("layer", "heads", "backend", "splits"))
def run(arguments, layer, heads, backend, splits=None):
    return step_attention(**arguments, layer=layer, heads=heads, backend=backend, splits=splits)


def results(case: Case, arguments: dict, backend: str, splits: int | None = None) -> list[np.ndarray]:
    """Output and pools as float32, without page 0, which may hold anything."""
    out, *pools = run(arguments, case.layer, case.heads, backend, splits)
    return [np.asarray(out, np.float32), *(np.asarray(pool, np.float32)[:, 1:] for pool in pools)]


def assert_kernel_equals_reference(case: Case, arguments: dict, splits: int | None) -> None:
    expected, actual = results(case, arguments, "reference"), results(case, arguments, "interpret", splits)
    small = 2e-6 if case.dtype == "float32" else 1e-2
    assert actual[0].shape == expected[0].shape and np.isfinite(actual[0]).all()
    assert error(actual[0], expected[0]) <= small
    for pool, after, before in zip(expected[1:], actual[1:], ("k_pool", "v_pool"), strict=True):
        np.testing.assert_array_equal(np.isnan(after), np.isnan(pool))
        assert error(np.nan_to_num(after), np.nan_to_num(pool)) <= small
        # One place a row is written, in one layer.
        changed = ~np.isclose(after, np.asarray(arguments[before], np.float32)[:, 1:], equal_nan=True, rtol=0, atol=0)
        assert changed.any(axis=(3, 4)).sum() == np.sum(np.asarray(arguments["lengths"]) > 0)


@named
def test_kernel_equals_reference(case):
    assert_kernel_equals_reference(case, case.make(1), 3)


@pytest.mark.parametrize("name", ["grouped_by_12", "float8"])
def test_unsplit_kernel_equals_reference(name):
    case = next(case for case in SMALL if case.name == name)
    assert_kernel_equals_reference(case, case.make(1), 1)


def test_programs_without_the_new_position_keep_scores_far_below_zero():
    """Where every score is as low, a part whose sum began at a score of 0 would be lost."""
    case = SMALL[0]
    arguments = case.make(1)
    columns = jnp.where(jnp.arange(arguments["u"].shape[1]) < case.heads * case.head_dim, 10.0, -10.0)
    arguments |= {
        "u": jnp.broadcast_to(columns, arguments["u"].shape),
        "k_pool": jnp.where(jnp.isnan(arguments["k_pool"]), jnp.nan, -10.0),
        "cos": jnp.ones_like(arguments["cos"]),
        "sin": jnp.zeros_like(arguments["sin"]),
    }
    assert_kernel_equals_reference(case, arguments, 3)


@pytest.mark.smoke
def test_kernel_equals_reference_on_every_version():
    assert_kernel_equals_reference(SMALL[0], SMALL[0].make(0), None)


PAGE, WIDTH, ROWS = 8, 5, 3
ROOM = PAGE * WIDTH
SHAPE = Case("random", 4, 2, 16, (ROOM,) * ROWS, page_size=PAGE, dtype="float32", rest=5)
# A new position behind an image prefix (0: none) and its gap, often at a page's border; or a row that has ended.
rows = st.tuples(st.integers(0, ROOM - PAGE), st.integers(0, ROOM) | st.sampled_from([1, PAGE, PAGE + 1])).map(
    lambda row: (row[0], min(row[0] + -row[0] % PAGE + row[1], ROOM))
)
ended = st.integers(0, ROOM).map(lambda prefix: (prefix, 0))


@given(
    rows=st.lists(rows.filter(lambda row: row[1] > row[0] + -row[0] % PAGE) | ended, min_size=ROWS, max_size=ROWS),
    splits=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
@settings(max_examples=30)
def test_any_positions_prefixes_and_ended_rows(rows, splits, seed):
    """What nobody sees is NaN, the new position's place too; behind a row's end the table may name any page."""
    prefixes, lengths = (np.array(column, np.int32) for column in zip(*rows, strict=True))
    arguments = {name: np.array(value) for name, value in SHAPE.make(seed).items()}
    seen = np.zeros((SHAPE.pages, PAGE), bool)
    for row, (prefix, length) in enumerate(zip(prefixes, lengths, strict=True)):
        entries = np.array([s for s in range(length - 1) if not prefix <= s < prefix + -prefix % PAGE], int)
        seen[arguments["tables"][row, entries // PAGE], entries % PAGE] = True
    for name in ("k_pool", "v_pool"):
        arguments[name] = np.where(seen[None, :, :, None, None], np.nan_to_num(arguments[name], nan=1.0), np.nan)
    behind = np.arange(WIDTH)[None] >= -(-lengths // PAGE)[:, None]
    strangers = np.random.default_rng(seed).integers(0, SHAPE.pages, (ROWS, WIDTH), dtype=np.int32)
    arguments["tables"] = np.where(behind, strangers, arguments["tables"])
    arguments |= {"lengths": lengths, "prefixes": prefixes}
    arguments["u"][lengths == 0] = np.nan  # a row that has ended computes from anything
    assert_kernel_equals_reference(SHAPE, arguments, splits)
    assert not results(SHAPE, arguments, "interpret", splits)[0][lengths == 0].any()


@pytest.mark.parametrize("name", ["gap", "bfloat16", "float8"])
def test_reference_is_what_the_engine_does_one_by_one(name):
    """Rotation, write and attention as a network and `paged_attend` do them without this operation."""
    case = next(case for case in SMALL if case.name == name)
    arguments = case.make(3)
    lengths, prefixes = (np.asarray(arguments[name]) for name in ("lengths", "prefixes"))
    positions = jnp.asarray(lengths - 1 - -prefixes % case.page_size)[:, None]
    cos, sin = rotary_tables(positions, rotary_frequencies(8, 10_000.0))
    arguments |= {"cos": cos[:, 0, 0], "sin": sin[:, 0, 0]}
    heads = arguments["u"][:, : (case.heads + 2 * case.kv_heads) * case.head_dim].reshape(
        len(lengths), 1, -1, case.head_dim
    )
    q, k, v = jnp.split(heads, (case.heads, case.heads + case.kv_heads), axis=2)
    scale = None
    if "k_scale" in arguments:
        scale = jnp.stack([arguments["k_scale"], arguments["v_scale"]], axis=1)
    kernels, valid = Kernels("reference"), jnp.ones(positions.shape, bool)
    attend = paged_attend(kernels, case.page_size, arguments["tables"], positions, valid, arguments["prefixes"], scale)
    cache = PagedCache(arguments["k_pool"], arguments["v_pool"])
    out, cache = attend(case.layer, rotate(q, cos, sin), rotate(k, cos, sin), v, cache)
    expected = [np.asarray(out, np.float32).reshape(len(lengths), -1), cache.k[:, 1:], cache.v[:, 1:]]
    for ours, theirs in zip(results(case, arguments, "reference"), expected, strict=True):
        theirs = np.asarray(theirs, np.float32)
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
        assert error(np.nan_to_num(ours), np.nan_to_num(theirs)) <= (1e-6 if case.dtype == "float32" else 1e-2)


def test_factors_are_applied_before_the_rotation():
    case = dataclasses.replace(next(case for case in SMALL if case.name == "factors"), dtype="float32")
    arguments = case.make(4)
    learned = np.tanh(np.sum(arguments["factor_parts"], axis=0)).reshape(len(case.lengths), 2, case.heads)
    factors = learned + np.asarray(arguments["factor_terms"])[case.layer][:, None]
    heads = np.array(arguments["u"]).reshape(len(case.lengths), 3, case.heads, case.head_dim)
    heads[:, 0] *= factors[:, 0, :, None]
    heads[:, 2] *= factors[:, 1, :, None]
    plain = {name: value for name, value in arguments.items() if not name.startswith("factor")}
    plain["u"] = jnp.asarray(heads.reshape(arguments["u"].shape))
    for ours, theirs in zip(results(case, arguments, "reference"), results(case, plain, "reference"), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def lowered(case: Case, **options) -> str:
    def call(arguments):
        return step_attention(**arguments, layer=case.layer, heads=case.heads, backend="triton", target=H200, **options)

    with abstract_device():
        return jax.jit(call).trace(case.abstract()).lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.smoke
@pytest.mark.parametrize("case", [*REAL, *SMALL], ids=lambda case: case.name)
def test_kernel_lowers_for_cuda(case):
    assert "step_attention" in lowered(case)


@pytest.mark.parametrize(("splits", "launches"), [(1, 1), (2, 2)])
def test_it_is_one_launch_and_one_more_where_keys_are_split(splits, launches):
    calls = [line for line in lowered(SMALL[0], splits=splits).splitlines() if "custom_call" in line]
    assert len(calls) == launches
    assert "output_operand_aliases" in calls[0]


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
    arguments, options = abstract(SMALL[0], **changes), {"layer": 0, "heads": 4, "target": target}
    with pytest.raises(KernelUnavailable, match=reason):
        jax.eval_shape(lambda a: step_attention(**a, **options, backend="triton"), arguments)
    jax.eval_shape(lambda a: step_attention(**a, **options), arguments)


FLOAT8, FACTORS = (next(case for case in SMALL if case.name == name) for name in ("float8", "factors"))


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        (SMALL[0], {"u": ((1, 800), jnp.float16)}, "bfloat16 or float32"),
        (SMALL[0], {"u": ((1, 800), jnp.bfloat16)}, "do not go with"),
        (SMALL[0], {"u": ((1, 767), jnp.float32)}, "767 columns"),
        (SMALL[0], {"k_pool": ((2, 7, 16, 3, 64), jnp.float32), "v_pool": ((2, 7, 16, 3, 64), jnp.float32)}, "4 query"),
        (SMALL[0], {"v_pool": ((2, 7, 16, 4, 32), jnp.float32)}, "two equal"),
        (SMALL[0], {"lengths": ((2,), jnp.int32)}, "1 rows"),
        (SMALL[0], {"prefixes": ((1,), jnp.float32)}, "int32"),
        (SMALL[0], {"cos": ((1, 33), jnp.float32), "sin": ((1, 33), jnp.float32)}, "up to 32"),
        (SMALL[0], {"sin": ((1, 16), jnp.bfloat16)}, "cos and sin"),
        (SMALL[0], {"k_scale": ((2,), jnp.float32), "v_scale": ((2,), jnp.float32)}, "scales go with"),
        (FLOAT8, {"k_scale": ((3,), jnp.float32)}, "need k_scale and v_scale"),
        (FACTORS, {"factor_parts": ((3, 4), jnp.float32)}, r"factor_parts must be float32 \[S, 3, 8\]"),
        (FACTORS, {"factor_parts": ((0, 3, 8), jnp.float32)}, "factor_parts must be"),
        (FACTORS, {"factor_parts": ((1, 3, 8), jnp.bfloat16)}, "factor_parts must be"),
        (FACTORS, {"factor_terms": ((1, 3, 4), jnp.float32)}, r"factor_terms must be float32 \[2, 3, 4\]"),
        (SMALL[0], {"factor_parts": ((3, 1, 8), jnp.float32)}, "go together"),
        (
            next(case for case in SMALL if case.name == "grouped"),
            {"factor_parts": ((1, 2, 16), jnp.float32), "factor_terms": ((2, 2, 8), jnp.float32)},
            "as many kv",
        ),
    ],
)
def test_bad_input_is_named(case, changes, message):
    arguments = case.abstract() | {name: jax.ShapeDtypeStruct(*new) for name, new in changes.items()}
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda a: step_attention(**a, layer=0, heads=case.heads), arguments)


def programs(case: Case, target: Target) -> tuple[int, int]:
    """How many programs one launch has, and among how many the keys of a row are split."""
    a = case.abstract()
    splits = triton.choose_splits(a["u"], a["k_pool"], a["tables"], case.heads, target.cores)
    return len(case.lengths) * case.kv_heads // triton.Tuning().block_heads * splits, splits


@pytest.mark.parametrize("target", [H200, A100, Target("cuda", 89, 142)], ids=["h200", "a100", "l40s"])
def test_every_batch_has_about_as_many_programs_as_the_chip_holds(target):
    resident = triton.Tuning().resident * target.cores
    by_rows = [programs(case, target) for case in REAL[:3]]
    assert [splits for _, splits in by_rows] == sorted((splits for _, splits in by_rows), reverse=True)
    assert by_rows[0][0] >= 2.5 * target.cores  # one row has too few keys for more
    assert all(0.75 * resident <= count <= 1.25 * resident for count, _ in by_rows[1:])


def test_short_tables_are_not_split():
    assert programs(dataclasses.replace(REAL[0], lengths=(16,), width=1), H200)[1] == 1
