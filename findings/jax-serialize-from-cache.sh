#!/usr/bin/env bash
# jax 0.10.2 (Linux, CPU): an executable that came from jax's compilation cache serializes without a complaint, but what
# is written lacks its functions. It loads, and fails when it runs: "Function ... not found". The
# same program serialized after a real compile runs.
# It matters to us because `jaxphoton compile` stores executables: with the cache on, a second run of the command wrote
# folders of which every program failed, and only at the first request. The cache is off there.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check "jax==0.10.2" "jaxlib==0.10.2"
cat > "$place/store.py" <<'PY'
import sys

import jax
import jax.numpy as jnp
from jax.experimental import serialize_executable

jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("cache_hits") else None)


def program(x):
    y = jnp.tanh(x @ x) + 1
    return jnp.sort(y, axis=1) - y.mean(axis=0)


x = jnp.ones((64, 64))
hits.clear()
compiled = jax.jit(program).lower(x).compile()
made = "the cache" if hits else "the compiler"
data, arguments, results = serialize_executable.serialize(compiled)
try:
    serialize_executable.deserialize_and_load(data, arguments, results)(x).block_until_ready()
    print(f"jax {jax.__version__}, from {made}: {len(data)} bytes, which run when they are loaded again")
except jax.errors.JaxRuntimeError as error:
    print(f"jax {jax.__version__}, from {made}: {len(data)} bytes, which do not run: {str(error)[:120]}")
PY
export JAX_PLATFORMS=cpu
first=$("$place/venv/bin/python" "$place/store.py" "$place/cache")
second=$("$place/venv/bin/python" "$place/store.py" "$place/cache")
printf '%s\n' "$first" "$second"
case "$first|$second" in
*"the compiler"*"which run"*"|"*"the cache"*"which do not run"*) exit 0 ;;
esac
echo "no longer seen"
exit 1
