#!/usr/bin/env bash
# Pallas-Triton (jax 0.10.2, and 0.12.0.1 alike) stores a float constant as its integer part where the place is an index
# known only at run time: `out_ref[pl.program_id(0)] = 0.75` writes 0, 2.75 writes 2, and -inf fails to lower with
# "cannot convert float infinity to integer". The rule for plain stores takes the constant's type from the index behind
# it. The interpreter stores 0.75, and so does the kernel itself if the constant is a value of the kernel, not a literal.
# Nothing is run here: it can be read in the Triton code that is lowered without a GPU.
# Why it matters to us: "nothing found" in a block would be stored as such constants. Our kernels store 0 as a constant
# at most, and what would be -inf is left unwritten (kernels_pallas/masked_sample/triton.py).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$work/venv/bin/python" - <<'PYTHON'
import contextlib
import io
import re
import sys

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

SHAPE = jax.ShapeDtypeStruct((4,), jnp.float32)


def literal(x_ref, out_ref):
    out_ref[pl.program_id(0)] = jnp.float32(2.75)


def value(x_ref, out_ref):
    at = pl.program_id(0)
    out_ref[at] = jnp.where(at < 4, jnp.float32(2.75), x_ref[at])


def constants(kernel):
    """The constants of the Triton code of a kernel, as written there."""
    call = pl.pallas_call(
        kernel, out_shape=SHAPE, grid=(4,), debug=True, compiler_params=triton.CompilerParams(num_warps=1)
    )
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        jax.jit(call).trace(SHAPE).lower(lowering_platforms=("cuda",))
    return set(re.findall(r"arith\.constant (\S+ : [if]32)", printed.getvalue()))


print(f"jax {jax.__version__}, Python {sys.version.split()[0]}")
interpreted = pl.pallas_call(literal, out_shape=SHAPE, grid=(4,), interpret=True)(jnp.zeros(4)).tolist()
as_literal, as_value = constants(literal), constants(value)
print(f"interpreted: {interpreted}")
print(f"constants lowered for a GPU: of a literal {sorted(as_literal)}, of a value {sorted(as_value)}")
whole = "2.750000e+00 : f32"
lost = whole not in as_literal and "2 : i32" in as_literal
sys.exit(0 if lost and whole in as_value and interpreted == [2.75] * 4 else "the constant is kept now")
PYTHON
