"""All programs of a model, compiled by bucket or loaded, and the pool of pages that fits beside them."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxphoton.config import EngineConfig, step_parts
from jaxphoton.config.gpus import step_form
from jaxphoton.config.mesh import MeshError
from jaxphoton.constraints.automaton import TokenAutomaton, build
from jaxphoton.engine import executables, programs
from jaxphoton.engine.agreement import facts_of, require_all, require_same
from jaxphoton.engine.buckets import Key, compiled, estimate, make_buckets, table_width
from jaxphoton.engine.compiling import compile_all, load_all
from jaxphoton.engine.control import Block, Prefill, Row
from jaxphoton.engine.executables import Executables, ExecutablesError
from jaxphoton.engine.memory import MemoryPlan, adapter_bytes, device_bytes, size_pool
from jaxphoton.engine.places import Here, Place
from jaxphoton.engine.programs import ProgramConfig
from jaxphoton.engine.spread import Spread
from jaxphoton.engine.state import FLOAT8, PagedCache, RowState
from jaxphoton.layers.mesh import Split
from jaxphoton.layers.spec import abstract
from jaxphoton.models.adapters import Adapter
from jaxphoton.models.protocol import Family, Kernels
from jaxphoton.processes.peers import Peers

_log = logging.getLogger(__name__)

# A program as it is lowered: its function, all its arguments (parameters first), and which of them it changes.
_Job = tuple[Callable[..., Any], tuple[Any, ...], tuple[int, ...]]


class Programs:
    """All programs of one model and configuration; an unplanned shape is an error, never a compile.

    Several engines may use one Programs: it holds no state. The automaton is that of the family's grammars where none
    is given. Programs come from `stored`, if that is given; for a `place` that is not here they can only be stored,
    and the parameters are shapes. On a mesh that has devices of several processes, `peers` are those.

    Raises:
      ExecutablesError: what is stored is not for this model, device or engine, or is damaged.
      DeviceMemoryError: the device is too small.
      MeshError: the mesh has devices of processes that are none of `peers`, or does not have one of each.
      PeerError: one of them has other settings, or is lost.
    """

    def __init__(
        self,
        params: Any,
        family: Family,
        engine: EngineConfig,
        automaton: TokenAutomaton | None = None,
        *,
        place: Place | None = None,
        stored: Executables | None = None,
        split: Split | None = None,
        peers: Peers | None = None,
    ):
        if place is None:
            require_all(None if split is None else split.mesh, peers)
        self.params, self.family, self.engine = params, family, engine
        self.automaton = automaton or build(family.grammars, family.vocab_size)
        network = family.network
        self.buckets = make_buckets(engine, family)
        self.table = table_width(family.max_context, engine.page_size)
        self.mask_words = -(-family.vocab_size // 32) if engine.host_masks else 0
        self.dtype = network.dtype(params)
        self._place = place or Here(jax.tree.leaves(params)[0].sharding)
        self._spread = None if split is None else Spread(split, network.specs(self.dtype), network)
        self._kv_dtype = FLOAT8 if engine.kv_dtype == "float8" else self.dtype
        kernels = Kernels(engine.kernels, self._place.target)
        self.program_config = ProgramConfig(family, self.automaton, self.table, self.mask_words, kernels)
        # Every argument of a launch costs host time, and so does every node of a tree: a program takes the leaves it
        # needs, as a list.
        self._trees = network.encoder(params), network.decoder(params)
        self.encoder, self.decoder = (jax.tree.leaves(tree) for tree in self._trees)
        self._adapters = self._room(engine.adapter_slots) if engine.adapter_slots else None
        self.peers = peers
        if peers is not None and split is not None:
            require_same(peers, facts_of(self._facts(), engine, split, params))
        self._compiled = self._compile_to_fit() if stored is None else self._load(stored)

    def fresh_state(self) -> tuple[PagedCache, RowState]:
        return self._made(self._state, jax.eval_shape(self._state))

    def fresh_pool(self) -> list[jax.Array]:
        """The leaves of empty slots of adapters, none where there are no slots."""
        shapes = jax.tree.leaves(self._adapters)
        return self._made(lambda: [jnp.zeros(shape.shape, shape.dtype) for shape in shapes], shapes)

    def adapter_arrays(self, adapter: Adapter) -> Any:
        """What is put into a slot, on the host; on a mesh in the order of its devices.

        Raises:
          WeightsError: the adapter does not fit.
        """
        network, rank = self.family.network, self.engine.adapter_rank
        arrays = network.adapter_slot(adapter, self.dtype, rank)
        return arrays if self._spread is None else self._spread.ordered(arrays, network.adapters(self.dtype, 1, rank))

    def as_adapter(self, leaves: list[Any]) -> Any:
        """The tree of `adapter_arrays` with these leaves."""
        return jax.tree.unflatten(jax.tree.structure(self._adapters), leaves)

    def on_device(self, adapter: Any) -> Any:
        """An adapter's arrays where its slot is to be; returns at once. With other processes they stay on the host: all
        need them."""
        if self.peers is not None:
            return adapter
        if self._spread is None:
            return jax.device_put(adapter, jax.tree.leaves(self.params)[0].sharding)
        return jax.device_put(adapter, self._spread.shardings(self._room(1)))

    def __getitem__(self, key: tuple) -> Callable:
        return self._compiled[key]

    @property
    def encodes_ahead(self) -> bool:
        """Whether an image may be encoded before its request's turn: on one CPU, where a launch encodes one image."""
        alone = self._spread is None and all(images == 1 for images, _ in self.buckets.vision)
        return alone and self._place.target.platform == "cpu"

    def step_config(self, rows: int) -> ProgramConfig:
        """Of a step of so many rows: it says which parts of a layer kernels compute."""
        kernels, form = self.program_config.kernels, self.engine.step_form
        if self._spread is not None:
            if form not in ("auto", "xla"):
                raise MeshError(f'on a mesh a step has the form "xla", not {form!r}: its sums cross the devices')
            form = "xla"
        if form == "auto":
            # Measured with the kernels, of weights in bfloat16.
            measured = kernels.backend in ("auto", "triton") and self.dtype == jnp.bfloat16
            form = step_form(self._place.kind, rows) if measured else "xla"
        kernels = dataclasses.replace(kernels, step=step_parts(form) or ())
        return dataclasses.replace(self.program_config, kernels=kernels)

    def store(self, folder: str | os.PathLike[str]) -> int:
        """Writes the programs to a new folder, for `Executables.open`; returns its bytes.

        Raises:
          ExecutablesError: it cannot be written.
        """
        return executables.write(folder, self._facts(), self.engine, self.pages, self._compiled, self._structures())

    def _made(self, make: Callable[[], Any], shapes: Any) -> Any:
        if self._spread is not None:
            return jax.jit(make, out_shardings=self._spread.shardings(shapes))()
        sharding = jax.tree.leaves(self.params)[0].sharding
        # Made elsewhere and moved, a pool would need its size there too.
        with jax.default_device(min(sharding.device_set, key=lambda device: device.id)):
            state = make()
        return jax.device_put(state, sharding)

    def _room(self, slots: int) -> Any:
        """So many slots of adapters, as shapes."""
        specs = self.family.network.adapters(self.dtype, slots, self.engine.adapter_rank)
        return abstract(specs) if self._spread is None else self._spread.split.shapes(specs)

    def _state(self) -> tuple[PagedCache, RowState]:
        cache = PagedCache.zeros(self.family.cache, self.pages, self.engine.page_size, self._kv_dtype)
        return cache, RowState.zeros(self.engine.max_rows, self.program_config.fed)

    def _structures(self) -> dict[Key, executables.Trees]:
        """Of the arguments and of the results of each program."""
        cache, rows = jax.eval_shape(self._state)
        results = {key: _results(key, cache, rows, self._adapters) for key in self.buckets.keys(self.engine)}
        return {key: (_structure(job), jax.tree.structure(results[key])) for key, job in self._jobs().items()}

    def _facts(self) -> executables.Facts:
        return self._place.facts() | executables.model_facts(self.family.to_json(), self.params)

    def _load(self, stored: Executables) -> dict[Key, Callable]:
        """The stored programs, and the pool that they were compiled for, if that fits."""
        stored.require(self._facts())
        stored.require_engine(self.engine)
        assert isinstance(self._place, Here)
        device, self.pages = self._place.device, stored.pages
        structures = self._structures()
        done = load_all(structures, lambda key, trees: stored.load(key, trees, device), str(stored.folder))
        plan = self._plan({key: compiled(program) for key, program in done.items()}, "stored")
        if plan.pages < self.pages:
            raise ExecutablesError(
                f"{stored.folder}: the executables are for {self.pages} pages of keys and values, and {plan.pages} fit "
                f"here; compile them with kv_pages={plan.pages} or less"
            )
        self._tell(dataclasses.replace(plan, pages=self.pages))
        return done

    def _compile(self) -> dict[Key, Callable]:
        return compile_all(self._jobs(), partial(_compile_one, self._place), self.family.cache.n_layers)

    def _compile_to_fit(self) -> dict[Key, Callable]:
        """Programs and a pool that fit beside each other: what programs need is estimated first, and known once they
        are compiled."""
        keys, item = self.buckets.keys(self.engine), jnp.dtype(self.dtype).itemsize
        scratch = {key: estimate(key, self.family, self.engine, item, self._ways) for key in keys}
        self.pages = self._least(self._plan(scratch, "estimated").pages)
        done = self._compile()
        plan = self._plan({key: compiled(program) for key, program in done.items()}, "compiled")
        if (pages := self._least(plan.pages)) < self.pages:
            self.pages = pages
            done = self._compile()
        self._least(self.pages)  # a first launch waits for the others half a minute: all must have compiled
        self._tell(dataclasses.replace(plan, pages=self.pages))
        return done

    def _least(self, pages: int) -> int:
        """The least of all processes."""
        return pages if self.peers is None else min(self.peers.gathered(pages))

    def _tell(self, plan: MemoryPlan) -> None:
        _log.info("memory of %s\n%s", self._place, "\n".join(plan.lines()))

    @property
    def _ways(self) -> int:
        """Devices that share the key/value heads."""
        return 1 if self._spread is None else self._spread.kv_ways

    def _plan(self, scratch: dict[Key, int], source: str) -> MemoryPlan:
        weights = Counter[str]()
        for path, leaf in jax.tree_util.tree_flatten_with_path(self.params)[0]:
            weights[jax.tree_util.keystr(path[:1], simple=True)] += device_bytes(leaf)
        # They are not there yet when memory is counted.
        if adapters := adapter_bytes(jax.tree.leaves(self._adapters)):
            weights["adapters"] = adapters
        item, (limit, used) = jnp.dtype(self._kv_dtype).itemsize, self._place.memory()
        return size_pool(self.family, self.engine, item, weights, scratch, source, limit, used + adapters, self._ways)

    def _jobs(self) -> dict[Key, _Job]:
        """What is compiled; donated is what a program changes: cache, row state, slots of adapters."""
        family, config = self.family, self.program_config
        cache, rows = jax.eval_shape(self._state)
        encoder, decoder = self._trees
        jobs: dict[Key, _Job] = {}

        def add(
            key: Key,
            function: Callable,
            arguments: tuple[Any, ...],
            donated: tuple[int, ...] = (1, 2),
            config: ProgramConfig = config,
        ) -> None:
            function = programs.on_device(function, None if self._spread is None else self._spread.decoder)
            if self._adapters is None or key[0] == "sample":
                jobs[key] = partial(function, config), (decoder, *arguments), donated
            else:
                *others, control = arguments
                control = _ints(control.shape[0], control.shape[1] + 1)
                function = partial(programs.with_adapters(function), config)
                jobs[key] = function, ((decoder, self._adapters), *others, control), donated

        for batch in self.buckets.step:
            control = _ints(batch, len(Row) + self.table)
            add(("step", batch), programs.step, (cache, rows, control), config=self.step_config(batch))
        if self.mask_words:
            batch = self.buckets.step[-1]
            control = _ints(batch, len(Row) + self.table)
            hidden = jax.ShapeDtypeStruct((batch, family.width), self.dtype)
            logits = jax.ShapeDtypeStruct((batch, family.vocab_size), jnp.float32)
            mask = jax.ShapeDtypeStruct((batch, self.mask_words), jnp.uint32)
            add(("forward", batch), programs.forward, (cache, rows, control), (1,), self.step_config(batch))
            control = _ints(batch, control.shape[1] + (self._adapters is not None))
            add(("sample", batch), programs.sample, (rows, control, hidden, logits, mask), (1,))
        for batch, length in self.buckets.prefill:
            width = len(Row) + self.table + self.mask_words + len(Prefill) + (1 + config.fed) * length
            add(("prefill", batch, length), programs.prefill, (cache, rows, _ints(batch, width)))
        for images, length in self.buckets.prefix:
            embeddings = jax.ShapeDtypeStruct((images, family.image_tokens, family.width), self.dtype)
            width = self.table + len(Block) + (0 if family.fixed_prefix else length)
            add(("prefix", images, length), programs.prefix, (cache, embeddings, _ints(images, width)), (1,))
        if self._adapters is not None:
            put = partial(programs.adapter, config), (self._adapters, self._room(1), _ints()), (0,)
            jobs["adapter", self.engine.adapter_slots] = put
        for images, crops in self.buckets.vision:
            packed = family.pack((), images, crops, lambda index: contextlib.nullcontext())
            shapes = (jax.ShapeDtypeStruct(array.shape, array.dtype) for array in packed)
            encode = partial(family.network.encode, images=images, kernels=self._place.encoder or config.kernels)
            if self._spread is not None:
                encode = self._spread.encode(encode, config.kernels)
            jobs["vision", images, crops] = encode, (encoder, *shapes), ()
        if self._spread is not None:
            results = {key: _results(key, cache, rows, self._adapters) for key in jobs}
            return {key: self._spread.job(job, results[key]) for key, job in jobs.items()}
        return jobs


def _compile_one(place: Place, key: Key, job: _Job) -> Callable:
    return place.compile(key[0], *_flat(job))


def _flat(job: _Job) -> _Job:
    """A job whose parameters are the list of their leaves."""
    function, (tree, *arguments), donated = job
    leaves, structure = jax.tree.flatten(tree)
    return _on_leaves(function, structure), (leaves, *arguments), donated


def _on_leaves(function: Callable[..., Any], structure: Any) -> Callable[..., Any]:
    """A function of a tree and more as one of the tree's leaves and more; programs keep its name."""

    def run(leaves: list[Any], *arguments: Any) -> Any:
        return function(jax.tree.unflatten(structure, leaves), *arguments)

    run.__name__ = getattr(function, "func", function).__name__
    return run


def _ints(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def _structure(job: _Job) -> Any:
    """Of a program's arguments, as jax has it: (positional, by name)."""
    return jax.tree.structure((_flat(job)[1], {}))


def _results(key: Key, cache: PagedCache, rows: RowState, adapters: Any) -> Any:
    """What a program returns, as shapes; 0 stands for an array that lies whole on every device."""
    results = {
        "step": (cache, rows, 0),
        "prefill": (cache, rows, 0),
        "prefix": cache,
        "forward": (cache, 0, 0),
        "sample": (rows, 0),
        "adapter": adapters,
        "vision": 0,
    }
    return results[key[0]]
