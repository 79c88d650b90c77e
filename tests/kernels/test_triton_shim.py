"""Every kernel names its backend: the one that jax takes for a plain `pallas_call` changes from release to release."""

from __future__ import annotations

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.pallas import triton

from kernels_pallas import triton_shim

pytestmark = pytest.mark.smoke

ROOT = Path(__file__).parents[2]
SHIM = "kernels_pallas/triton_shim.py"


def callers(source: str) -> list[int]:
    """Lines that take `pallas_call` from anywhere but the shim."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr == "pallas_call":
            if not (isinstance(node.value, ast.Name) and node.value.id == "triton_shim"):
                found.append(node.lineno)
        if isinstance(node, ast.ImportFrom) and node.module != "kernels_pallas.triton_shim":
            found += [node.lineno for name in node.names if name.name == "pallas_call"]
    return found


def test_kernels_are_called_through_the_shim_alone():
    files = [path for part in ("jaxphoton", "kernels_pallas", "scripts") for path in (ROOT / part).rglob("*.py")]
    found = {
        str(path.relative_to(ROOT)): lines for path in files if (lines := callers(path.read_text(encoding="utf-8")))
    }
    assert list(found) == [SHIM]


def test_the_scan_sees_a_plain_call():
    assert callers("from jax.experimental import pallas as pl\npl.pallas_call(f)\n") == [2]
    assert callers("from jax.experimental.pallas import pallas_call\n") == [1]


def test_the_shim_names_triton():
    def double(x, out):
        out[...] = 2 * x[...]

    x = jnp.ones((8, 8))
    call = triton_shim.pallas_call(double, name="double", grid=(1,), out_shape=x, warps=2, stages=3, interpret=True)
    (equation,) = [e for e in jax.make_jaxpr(call)(x).eqns if e.primitive.name == "pallas_call"]
    parameters = equation.params["compiler_params"]
    assert isinstance(parameters, triton.CompilerParams)
    assert (parameters.num_warps, parameters.num_stages) == (2, 3)
