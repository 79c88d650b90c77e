"""A model of full size with random weights on the device, and what decodes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from jaxphoton.config import EngineConfig
from jaxphoton.constraints.automaton import TokenAutomaton
from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.control import ControlPacker
from jaxphoton.engine.memory import kv_position_bytes
from jaxphoton.engine.state import PagedCache, RowState
from jaxphoton.layers.attention import attend
from jaxphoton.layers.spec import nbytes
from jaxphoton.measure.cost_model import step_cost
from jaxphoton.measure.decoding import DecodeBench, tables_of
from jaxphoton.measure.timing import memory_limit, noise, random_array
from jaxphoton.models.moondream import device as moondream
from jaxphoton.models.protocol import Family
from jaxphoton.models.siglip import network as siglip
from scripts.models import family_named, is_small

FEW_LAYERS = 8
CONTEXT = 850  # positions a row: an image, a question, some text
TICKS = 100  # of a measured round


def row_counts(name: str) -> tuple[int, ...]:
    """How many rows are measured: those whose cache leaves room on the device."""
    if is_small(name):
        return 1, 8
    family, limit = family_named(name), memory_limit()
    weights = sum(map(nbytes, jax.tree.leaves(family.network.abstract(jnp.bfloat16))))
    page = 16 * kv_position_bytes(family.cache, 2)
    return tuple(n for n in (1, 8, 32, 64) if limit is None or weights + page * _pages(n) < 0.7 * limit)


def _pages(rows: int) -> int:
    return 1 + rows * (CONTEXT // 16 + 10)


class Load:
    """Random weights and compiled programs.

    The engine's settings are the same for all parts of the check, but for the buckets: what one part has compiled,
    the next finds in the compilation cache.

    Attributes:
      fault: why it could not be compiled with all kernels, so that this is a plainer form; empty if it could.
    """

    def __init__(
        self,
        name: str,
        rows: Iterable[int],
        family: Family | None = None,
        build: Callable[..., tuple[Programs, str]] | None = None,
        **buckets: Any,
    ):
        """`rows` to decode; `build` makes the programs, None for `compiled`; `buckets` as in EngineConfig."""
        self.family = family or family_named(name)
        self.context, self.ticks = (60, 6) if is_small(name) else (CONTEXT, TICKS)
        self.dtype = "float32" if jax.devices()[0].platform == "cpu" else "bfloat16"
        params = random_params(self.family, self.dtype)
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
        steps = tuple(sorted(set(rows)))
        buckets = {"prefill_rows": (4,), "prefill_lengths": (128,), "vision": ((1, 1),)} | buckets
        engine = EngineConfig(
            max_rows=steps[-1], step_rows=steps, kv_pages=_pages(steps[-1]), host_masks=False, **buckets
        )
        tables = tables_of(self.family, self.ticks)
        self.programs, self.fault = (build or compiled)(params, self.family, engine, tables)

    def faults(self) -> dict[str, list[str]]:
        """For a part's result."""
        return {"failed": [self.fault]} if self.fault else {}

    def step_bytes(self, rows: int) -> int:
        """Bytes a decode step must read: text weights and the keys and values of all positions."""
        return step_cost(self.family, self.dtype, rows, self.context, readout=False).bytes

    @property
    def decoder(self) -> Any:
        """Parameters of a step as a tree; programs take its leaves."""
        return self.family.network.decoder(self.programs.params)

    def state(self) -> tuple[PagedCache, RowState]:
        """Pages full of noise, and rows in the middle of a text."""
        shapes = jax.eval_shape(self.programs.fresh_state)
        cache = PagedCache(*(random_array(s.shape, s.dtype, seed) for seed, s in enumerate((shapes[0].k, shapes[0].v))))
        rows = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes[1])
        start = self.programs.automaton.start["free"]
        return cache, dataclasses.replace(rows, state=rows.state + start, token=rows.token + 20)

    def bench(self, rows: int) -> DecodeBench:
        """Texts of about `context` positions each."""
        return DecodeBench(self.programs, rows, self.ticks, self.context)

    def control(self, rows: int) -> np.ndarray:
        """Of a step of `rows` texts; the rest of the bucket is padding."""
        programs, plan = self.programs, self.bench(rows).step_plan()
        packer = ControlPacker(programs.engine.max_rows, programs.table, programs.mask_words, programs.family.readout)
        return packer.step(plan.sequences, next(n for n in programs.buckets.step if n >= rows))


def compiled(params: Any, family: Family, engine: EngineConfig, tables: TokenAutomaton) -> tuple[Programs, str]:
    """Programs as they are meant to run; if they do not compile, without cuDNN; if not so either, without kernels."""
    try:
        return Programs(params, family, engine, tables), ""
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"[:1000]
    try:
        with mock.patch.object(moondream, "cudnn_attend", attend), mock.patch.object(siglip, "cudnn_attend", attend):
            return Programs(params, family, engine, tables), f"without cuDNN, since: {fault}"
    except Exception:
        plain = dataclasses.replace(engine, kernels="reference")
        return Programs(params, family, plain, tables), f"without kernels, since: {fault}"


class _Uncompiled(Programs):
    def _jobs(self) -> dict[tuple, Any]:
        return {}


def uncompiled(*arguments: Any) -> tuple[Programs, str]:
    """For those who compile a step of their own."""
    return _Uncompiled(*arguments), ""


def small_load(name: str, rows: Iterable[int], build: Callable[..., tuple[Programs, str]] = uncompiled) -> Load:
    """Of few layers."""
    return Load(name, rows, family_named(name, layers=2 if is_small(name) else FEW_LAYERS), build)


class Stepper:
    """Chains a compiled step through one state; calling it enqueues the next."""

    def __init__(self, state: tuple[PagedCache, RowState]):
        self.cache, self.rows = state

    def launch(self, run: Callable, params: Any, control: Any) -> Callable[[], jax.Array]:
        def enqueue() -> jax.Array:
            self.cache, self.rows, output = run(params, self.cache, self.rows, control)
            return output

        return enqueue


def random_params(family: Family, dtype: Any) -> Any:
    """Uniform weights of standard deviation 0.02, made on the device."""
    shapes, tree = jax.tree.flatten(family.network.abstract(dtype))

    def fill(seed: jax.Array) -> list[jax.Array]:
        return [noise(seed + jnp.uint32(i), s.shape, s.dtype, 0.02 * 3**0.5) for i, s in enumerate(shapes)]

    return jax.tree.unflatten(tree, jax.jit(fill)(np.uint32(0)))
