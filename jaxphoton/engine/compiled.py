"""All programs of a model, compiled by bucket, and the pool of pages that fits beside them."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxphoton.config import EngineConfig, step_parts
from jaxphoton.config.gpus import step_form
from jaxphoton.constraints.automaton import TokenAutomaton, build
from jaxphoton.engine import programs
from jaxphoton.engine.buckets import Key, compiled, estimate, make_buckets, table_width
from jaxphoton.engine.control import Prefill, Row
from jaxphoton.engine.memory import MemoryPlan, size_pool
from jaxphoton.engine.programs import ProgramConfig
from jaxphoton.engine.state import FLOAT8, PagedCache, RowState
from jaxphoton.models.protocol import Family, Kernels
from kernels_pallas.dispatch import Target

_log = logging.getLogger(__name__)
# For whoever waits meanwhile; the command line shows it.
_compiling = logging.getLogger("jaxphoton.compiling")
COMPILING = "jaxphoton-compiling"  # names of threads
QUIET_S = 3.0  # programs that come from the cache are not announced one by one

# A program as it is lowered: its function, all its arguments (parameters first), and which of them it changes.
_Job = tuple[Callable[..., Any], tuple[Any, ...], tuple[int, ...]]


class Programs:
    """All programs of one model and configuration; an unplanned shape is an error, never a compile.

    Several engines may use one Programs: it holds no state. The automaton is that of the family's grammars where none
    is given.
    """

    def __init__(self, params: Any, family: Family, engine: EngineConfig, automaton: TokenAutomaton | None = None):
        self.params, self.family, self.engine = params, family, engine
        self.automaton = automaton or build(family.grammars, family.vocab_size)
        network = family.network
        self.buckets = make_buckets(engine, family)
        self.table = table_width(family.max_context, engine.page_size)
        self.mask_words = -(-family.vocab_size // 32) if engine.host_masks else 0
        self.dtype = network.dtype(params)
        self._sharding = jax.tree.leaves(params)[0].sharding
        self._device = next(iter(self._sharding.device_set))
        self._kv_dtype = FLOAT8 if engine.kv_dtype == "float8" else self.dtype
        kernels = Kernels(engine.kernels, Target.of(self._device))
        self.program_config = ProgramConfig(family, self.automaton, self.table, self.mask_words, kernels)
        # Every argument of a launch costs host time, and so does every node of a tree: a program takes the leaves it
        # needs, as a list.
        self._trees = network.encoder(params), network.decoder(params)
        self.encoder, self.decoder = (jax.tree.leaves(tree) for tree in self._trees)
        self._compiled = self._compile_to_fit()

    def fresh_state(self) -> tuple[PagedCache, RowState]:
        with jax.default_device(self._device):  # made elsewhere and moved, a pool would need its size there too
            cache = PagedCache.zeros(self.family.cache, self.pages, self.engine.page_size, self._kv_dtype)
            rows = RowState.zeros(self.engine.max_rows, self.program_config.fed)
        return jax.device_put((cache, rows), self._sharding)

    def __getitem__(self, key: tuple) -> Callable:
        return self._compiled[key]

    def step_config(self, rows: int) -> ProgramConfig:
        """Of a step of so many rows: it says which parts of a layer kernels compute."""
        kernels, form = self.program_config.kernels, self.engine.step_form
        if form == "auto":
            # Measured with the kernels, of weights in bfloat16.
            measured = kernels.backend in ("auto", "triton") and self.dtype == jnp.bfloat16
            form = step_form(self._device.device_kind, rows) if measured else "xla"
        kernels = dataclasses.replace(kernels, step=step_parts(form) or ())
        return dataclasses.replace(self.program_config, kernels=kernels)

    def prefix_pages(self, length: int) -> int:
        """Pages of an image prefix."""
        return -(-length // self.engine.page_size)

    def _compile_to_fit(self) -> dict[Key, Callable]:
        """Programs and a pool that fit beside each other: what programs need is estimated first, and known once they
        are compiled."""
        keys, item = self.buckets.keys(self.engine.host_masks), jnp.dtype(self.dtype).itemsize
        self.pages = self._plan({key: estimate(key, self.family, self.engine, item) for key in keys}, "estimated").pages
        done = _compile(self._jobs())
        plan = self._plan({key: compiled(program) for key, program in done.items()}, "compiled")
        if plan.pages < self.pages:
            self.pages = plan.pages
            done = _compile(self._jobs())
        _log.info("memory of %s\n%s", self._device, "\n".join(dataclasses.replace(plan, pages=self.pages).lines()))
        return done

    def _plan(self, scratch: dict[Key, int], source: str) -> MemoryPlan:
        weights = Counter[str]()
        for path, leaf in jax.tree_util.tree_flatten_with_path(self.params)[0]:
            weights[jax.tree_util.keystr(path[:1], simple=True)] += leaf.size * leaf.dtype.itemsize
        item = jnp.dtype(self._kv_dtype).itemsize
        return size_pool(self.family, self.engine, item, weights, scratch, source, *memory_of(self._device))

    def _jobs(self) -> dict[Key, _Job]:
        """What is compiled; donated is what a program changes: cache, row state."""
        family, config = self.family, self.program_config
        cache, rows = jax.eval_shape(self.fresh_state)
        encoder, decoder = self._trees
        jobs: dict[Key, _Job] = {}

        def add(key: Key, function: Callable, arguments: tuple[Any, ...], donated: tuple[int, ...] = (1, 2)) -> None:
            jobs[key] = partial(function, config), (decoder, *arguments), donated

        for batch in self.buckets.step:
            control = _ints(batch, len(Row) + self.table)
            jobs["step", batch] = (
                partial(programs.step, self.step_config(batch)),
                (decoder, cache, rows, control),
                (1, 2),
            )
        if self.mask_words:
            batch = self.buckets.step[-1]
            control = _ints(batch, len(Row) + self.table)
            hidden = jax.ShapeDtypeStruct((batch, family.width), self.dtype)
            logits = jax.ShapeDtypeStruct((batch, family.vocab_size), jnp.float32)
            mask = jax.ShapeDtypeStruct((batch, self.mask_words), jnp.uint32)
            forward = partial(programs.forward, self.step_config(batch))
            jobs["forward", batch] = forward, (decoder, cache, rows, control), (1,)
            add(("sample", batch), programs.sample, (rows, control, hidden, logits, mask), (1,))
        for batch, length in self.buckets.prefill:
            width = len(Row) + self.table + self.mask_words + len(Prefill) + (1 + config.fed) * length
            add(("prefill", batch, length), programs.prefill, (cache, rows, _ints(batch, width)))
        for images, length in self.buckets.prefix:
            embeddings = jax.ShapeDtypeStruct((images, family.image_tokens, family.width), self.dtype)
            width = self.prefix_pages(length) + (0 if family.fixed_prefix else 1 + length)
            add(("prefix", images, length), programs.prefix, (cache, embeddings, _ints(images, width)), (1,))
        for images, crops in self.buckets.vision:
            packed = family.pack((), images, crops, lambda index: contextlib.nullcontext())
            shapes = (jax.ShapeDtypeStruct(array.shape, array.dtype) for array in packed)
            encode = partial(family.network.encode, images=images, kernels=config.kernels)
            jobs["vision", images, crops] = encode, (encoder, *shapes), ()
        return jobs


def memory_of(device: Any) -> tuple[int | None, int]:
    """(bytes that the allocator can hand out, bytes handed out already); (None, 0) on a CPU, which does not say."""
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit"), stats.get("bytes_in_use", 0)


def _compile(jobs: Mapping[Key, _Job]) -> dict[Key, Callable]:
    """Compiles in threads, and says so."""

    def compile_one(job: _Job) -> Callable:
        function, (tree, *arguments), donated = job
        leaves, structure = jax.tree.flatten(tree)
        return jax.jit(_on_leaves(function, structure), donate_argnums=donated).lower(leaves, *arguments).compile()

    names = {key: " ".join(map(str, key)) for key in jobs}
    _compiling.info("compiling %d programs: %s", len(jobs), ", ".join(names.values()))
    began = time.monotonic()
    done: dict[Key, Callable] = {}
    pool = ThreadPoolExecutor(thread_name_prefix=COMPILING)
    try:
        under_way = {pool.submit(compile_one, job): key for key, job in jobs.items()}
        for future in as_completed(under_way):
            key = under_way[future]
            done[key] = future.result()
            seconds = time.monotonic() - began
            if seconds > QUIET_S:
                _compiling.info("compiled %s, %d of %d, after %.0f s", names[key], len(done), len(jobs), seconds)
    except BaseException as error:
        # Each may take a minute: none begins any more, and who interrupts does not wait for those that have begun.
        pool.shutdown(wait=not isinstance(error, KeyboardInterrupt), cancel_futures=True)
        raise
    pool.shutdown()
    return {key: done[key] for key in jobs}


def _on_leaves(function: Callable[..., Any], structure: Any) -> Callable[..., Any]:
    """A function of a tree and more as one of the tree's leaves and more; programs keep its name."""

    def run(leaves: list[Any], *arguments: Any) -> Any:
        return function(jax.tree.unflatten(structure, leaves), *arguments)

    run.__name__ = getattr(function, "func", function).__name__
    return run


def _ints(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)
