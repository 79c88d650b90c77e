"""What the experts of many tokens cost on a CPU, by the products that are needed and by every expert on every token:

    python scripts/experts_bench.py [--tokens 730] [--width 1024] [--experts 64] [--chosen 8] [--turns 5]

Processor time of one layer, in turns; each line has the medians and their ratio. The inner size is half the width, as
in Moondream 3; routing is random.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np

from jaxphoton.layers import moe
from jaxphoton.layers.weight import Dense

FORMS = {"needed": moe.mix, "every": moe.mix_dense}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("tokens", 730), ("width", 1024), ("experts", 64), ("chosen", 8), ("turns", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    arguments = drawn(args.tokens, args.width, args.experts, args.chosen)
    runs = {name: jax.jit(form) for name, form in FORMS.items()}
    results = [np.asarray(run(*arguments)) for run in runs.values()]
    difference = np.max(np.abs(results[0] - results[1])) / np.max(np.abs(results[1]))
    seconds = {name: [] for name in runs}
    for _ in range(args.turns):
        for name, run in runs.items():
            seconds[name].append(processor_seconds(lambda run=run: run(*arguments)))
    needed, every = (1e3 * statistics.median(seconds[name]) for name in FORMS)
    print(f"{args.tokens} tokens, width {args.width}, {args.chosen} of {args.experts} experts, jax {jax.__version__}")
    print(
        f"needed products {needed:.0f} ms of processors, every expert on every token {every:.0f}: {needed / every:.2f}"
    )
    print(f"largest difference {difference:.1e} of the largest result")


def drawn(tokens: int, width: int, experts: int, chosen: int) -> tuple[Any, ...]:
    """Arguments of a `moe.Mix`."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(random.standard_normal(shape, np.float32) * shape[-1] ** -0.5)

    shapes = (experts, width), (experts, width, width), (experts, width, width // 2)
    router, fc1, fc2 = (Dense(normal(*shape)) for shape in shapes)
    params = moe.ExpertParams(router, fc1, fc2)
    numbers = np.stack([random.permutation(experts)[:chosen] for _ in range(tokens)]).astype(np.int32)
    weights = jax.nn.softmax(normal(tokens, chosen), axis=-1)
    return params, normal(tokens, width), jnp.asarray(numbers), weights


def processor_seconds(run: Callable[[], jax.Array]) -> float:
    """User and system time of this process while it runs."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    run().block_until_ready()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


if __name__ == "__main__":
    main()
