"""What the tests of the experts' kernels compare with."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kernels_pallas.moe_decode.cases import BESIDE, Case
from tests.kernels.comparing import TOLERANCE, error

PAIRS = ("slots", "layer", "up_a", "up_b", "down_a", "down_b")


def definition(arguments: dict) -> np.ndarray:
    """One choice at a time, in float64, from the words of the contract."""
    x, up, down, weights = (np.asarray(arguments[name], np.float64) for name in ("x", "up", "down", "weights"))
    if "up_scale" in arguments:
        up, down = (_scaled(arguments[f"{name}_scale"], matrix) for name, matrix in (("up", up), ("down", down)))
    erf = np.vectorize(math.erf, otypes=[float])
    out = np.zeros_like(x)
    for (token, j), expert in np.ndenumerate(np.asarray(arguments["experts"])):
        if expert < 0:
            continue
        delta = functools.partial(_delta, arguments, expert, token)
        u, g = np.split(up[expert] @ x[token] + delta("up", x[token]), 2)
        fed = 0.5 * u * (1 + erf(u / math.sqrt(2))) * (g + 1)
        out[token] += weights[token, j] * (down[expert] @ fed + delta("down", fed))
    return out


def _scaled(scale: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Factors [E, N] or [E, N, groups]."""
    each = np.asarray(scale, np.float64).reshape(*matrix.shape[:2], -1)
    return matrix * np.repeat(each, matrix.shape[2] // each.shape[2], axis=2)


def _delta(arguments: dict, expert: int, token: int, name: str, x: np.ndarray) -> np.ndarray | float:
    if "slots" not in arguments or (slot := int(arguments["slots"][token])) < 0:
        return 0.0
    a, b = (np.asarray(arguments[f"{name}_{part}"], np.float64)[arguments["layer"], expert] for part in "ab")
    return b[:, slot] @ (a[slot] @ x)


def exact_inputs(case: Case, seed: int) -> dict:
    """Inputs of which every sum is exact in any order, products too: small integers times powers of two.

    u is a multiple of 8, where gelu(u) is u or 0 to the last bit of float32; u and g have so few terms that their
    product fits into bfloat16.
    """
    random = np.random.default_rng(seed)
    arguments = case.make(seed)
    x = np.zeros((case.tokens, case.model), np.float32)
    for row in x:
        row[random.permutation(case.model)[:3]] = random.choice([-1, 1], 3)
    values = {
        "up": random.integers(-1, 2, arguments["up"].shape) * np.repeat([8, 1], case.inner)[:, None],
        "down": random.integers(-3, 4, arguments["down"].shape),
    }
    for name, matrices in values.items():
        scale = np.exp2(random.integers(-3, 4, matrices.shape[:2])).astype(np.float32)
        arguments[f"{name}_scale"] = scale
        arguments[name] = (matrices / scale[:, :, None]).astype(arguments[name].dtype)
        assert np.array_equal(np.asarray(arguments[name], np.float32) * scale[:, :, None], matrices)
    weights = np.exp2(random.integers(-2, 3, arguments["weights"].shape)).astype(np.float32)
    return arguments | {"x": x.astype(arguments["x"].dtype), "weights": weights}


def part_of(arguments: dict, first: int, count: int) -> dict:
    """The same for a device that has `count` experts from number `first` on; weights of other choices are NaN."""
    experts = arguments["experts"] - first
    here = (experts >= 0) & (experts < count)
    split = {"experts": np.where(here, experts, -1), "weights": np.where(here, arguments["weights"], np.nan)}
    own = slice(first, first + count)
    split |= {name: arguments[name][own] for name in BESIDE if name in arguments}
    split |= {name: arguments[name][:, own] for name in PAIRS[2:] if name in arguments}
    return arguments | {name: np.asarray(value, arguments[name].dtype) for name, value in split.items()}


def assert_parts_sum_up(case: Case, run: Callable[[dict], Any]) -> None:
    """Devices that have half of the experts each give results whose sum is that of one that has all."""
    arguments, half = case.make(8), case.experts // 2
    whole, *parts = (run(each) for each in (arguments, *(part_of(arguments, first, half) for first in (0, half))))
    assert all(np.any(np.asarray(part)) for part in parts)
    assert error(np.sum(parts, axis=0), whole) <= 2 * TOLERANCE["float32"]


def assert_slots_are_apart(arguments: dict, run: Callable[[dict], Any]) -> None:
    """A token takes the pairs of its slot and no others, for arguments with three slots of adapters."""
    slots, huge = np.resize(np.arange(-1, 3, dtype=np.int32), len(arguments["x"])), np.finfo(np.float32).max
    arguments = arguments | {"slots": slots}
    without = {name: value for name, value in arguments.items() if name not in PAIRS}
    others = arguments | {name: arguments[name].copy() for name in ("up_a", "down_a")}
    for name in ("up_a", "down_a"):
        others[name][:, :, 1] = huge
    mixed, plain, overflown = (np.asarray(run(each)) for each in (arguments, without, others))
    np.testing.assert_allclose(mixed[slots < 0], plain[slots < 0], rtol=1e-6, atol=1e-7)
    assert not np.any(np.isclose(mixed[slots >= 0], plain[slots >= 0]).all(axis=1))
    np.testing.assert_array_equal(overflown[slots != 1], mixed[slots != 1])
    assert not np.isfinite(overflown[slots == 1]).all()
