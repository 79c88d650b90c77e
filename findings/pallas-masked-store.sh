#!/usr/bin/env bash
# Pallas's interpreter (jax 0.10.2, and 0.12.0.1 alike) loses what a masked store writes where a masked-off lane of the
# same store names the same place: it reads all lanes' places, puts the old values back for those that are masked off,
# and scatters everything. A GPU does not touch memory for a lane that is masked off.
# Why it matters to us: kernels are tested in the interpreter. A compaction (the choices of one expert, one behind the
# other) is the natural form of such a store, and gave uninitialised numbers there; so masked lanes are given places of
# their own, outside of the array (kernels_pallas/moe_prefill/triton.py).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$work/venv/bin/python" - <<'PYTHON'
import sys

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton


def compact(values_ref, out_ref, masked_place):
    values = values_ref[...]
    wanted = values > 0
    places = jnp.cumsum(wanted.astype(jnp.int32)) - 1
    # Without a place of its own a masked lane names that of the last wanted one before it.
    places = places if masked_place is None else jnp.where(wanted, places, masked_place)
    triton.store(out_ref.at[places], values, mask=wanted)


def run(masked_place):
    out = jax.ShapeDtypeStruct((2,), jnp.int32)
    call = pl.pallas_call(lambda *refs: compact(*refs, masked_place), out_shape=out, interpret=True)
    return call(jnp.array([5, 0, 7, 0], jnp.int32)).tolist()


shared, apart = run(None), run(2)
print(f"jax {jax.__version__}, Python {sys.version.split()[0]}")
print(f"the positive of [5, 0, 7, 0]: masked lanes at written places {shared}, outside {apart}; expected [5, 7]")
sys.exit(0 if shared != [5, 7] and apart == [5, 7] else "the interpreter no longer loses them")
PYTHON
