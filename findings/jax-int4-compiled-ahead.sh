#!/usr/bin/env bash
# jax 0.10.2 (Linux, CPU): a function that was lowered and compiled ahead refuses an int4 array that was put on a device,
# though it was compiled for exactly that array: "compiled for input layouts that disagree". The executable wants two
# numbers a byte (sub_byte_element_size_in_bits=4), the array says 0, and is stored so all the same. The same array
# passes under jit, and uncommitted. Nothing that the array can be put or made with changes what it says.
# It matters to us because all programs of the engine are compiled ahead: 4-bit weights are stored as uint8, two to a
# byte, and become int4 inside the programs.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check "jax==0.10.2" "jaxlib==0.10.2"
cat > "$place/ahead.py" <<'PY'
import sys

import jax
import jax.numpy as jnp

double = jax.jit(lambda x: x.astype(jnp.int32) * 2)
anywhere = jnp.ones((4, 8), jnp.int4)
put = jax.device_put(anywhere, jax.devices()[0])
ahead = double.lower(put).compile()
print(f"jax {jax.__version__}: under jit {int(double(put).sum())}, ahead, not put anywhere {int(ahead(anywhere).sum())}")
print(f"the array says {put.format.layout}, the executable wants {ahead.input_formats[0][0].layout}")
try:
    print(f"ahead, put on the device: {int(ahead(put).sum())}")
except ValueError as error:
    print(f"ahead, put on the device: {str(error).splitlines()[0]}")
    sys.exit(0)
sys.exit(1)
PY
JAX_PLATFORMS=cpu "$place/venv/bin/python" "$place/ahead.py"
