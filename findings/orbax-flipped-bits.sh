#!/usr/bin/env bash
# orbax-checkpoint 0.12.8 (tensorstore 0.1.86, jax 0.10.2): a checkpoint in which one bit has flipped restores other
# weights, without an error or a warning.
#
# A StandardCheckpointer writes OCDBT, whose own records end in a CRC-32C: damage to those is refused. The arrays lie
# beside them as zstd frames without the frame's optional checksum, and nothing else covers them. Of weights, which hardly
# compress, nearly every bit of such a frame is a literal: flip one anywhere and the array comes back with other numbers.
# Why it matters here: a converted model of gigabytes is copied between disks and machines, and a wrong copy would answer
# questions. So `jaxphoton convert` keeps checksums of all files, and loading compares them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
  orbax-checkpoint==0.12.8 tensorstore==0.1.86 jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu venv/bin/python - <<'PYTHON'
import importlib.metadata
import random
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("orbax-checkpoint", "tensorstore", "jax")))
weights = {"w": jnp.asarray(np.random.default_rng(0).standard_normal((256, 1024)), jnp.bfloat16)}
written = np.asarray(weights["w"]).tobytes()
place = Path("checkpoint").absolute()
with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(place, weights)
data = max((file for file in place.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
whole = data.read_bytes()
print(f"{len(written)} bytes of bfloat16 are in a file of {len(whole)} bytes")

chosen, outcomes = random.Random(0), {"other weights": 0, "the same": 0, "refused": 0}
for _ in range(20):
    damaged = bytearray(whole)
    damaged[chosen.randrange(len(damaged))] ^= 1 << chosen.randrange(8)
    data.write_bytes(damaged)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            restored = checkpointer.restore(place, jax.tree.map(ocp.utils.to_shape_dtype_struct, weights))
    except Exception:
        outcomes["refused"] += 1
    else:
        outcomes["the same" if np.asarray(restored["w"]).tobytes() == written else "other weights"] += 1
print("20 times one bit flipped:", outcomes)
if not outcomes["other weights"]:
    sys.exit("the behaviour is no longer seen")
PYTHON
