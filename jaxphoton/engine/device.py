"""The real device: compiled programs by bucket, the state they are threaded through, launches and the one fetch."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from collections.abc import Sequence as Many
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxphoton.config import EngineConfig
from jaxphoton.constraints.automaton import TokenAutomaton
from jaxphoton.engine import programs
from jaxphoton.engine.buckets import make_buckets
from jaxphoton.engine.control import ControlPacker, Masks
from jaxphoton.engine.crops import add_crops, empty_crops
from jaxphoton.engine.layout import Prefill, Row, table_width
from jaxphoton.engine.memory import MemoryPlan, size_pool
from jaxphoton.engine.programs import Family
from jaxphoton.engine.scheduler import PrefillPlan, StepPlan
from jaxphoton.engine.scratch import Key, compiled, estimate, program_keys
from jaxphoton.engine.sequence import Sequence
from jaxphoton.engine.state import FLOAT8, Kernels, PagedCache, RowState
from jaxphoton.layers.attention import Attention, attend, cudnn_attend
from jaxphoton.models.moondream import vision
from jaxphoton.models.moondream.config import ModelConfig
from jaxphoton.models.moondream.params import Params
from jaxphoton.requests.errors import RequestFault
from kernels_pallas.dispatch import Target

_log = logging.getLogger(__name__)
# For whoever waits meanwhile; the command line shows it.
_compiling = logging.getLogger("jaxphoton.compiling")
COMPILING = "jaxphoton-compiling"  # names of threads
QUIET_S = 3.0  # programs that come from the cache are not announced one by one


class Programs:
    """All programs of one model and configuration, compiled; an unplanned shape is an error, never a compile.

    Several engines may use one Programs: it holds no state.
    """

    def __init__(self, params: Params, config: ModelConfig, automaton: TokenAutomaton, engine: EngineConfig):
        self.params, self.config, self.engine, self.automaton = params, config, engine, automaton
        self.buckets = make_buckets(engine, config)
        self.table = table_width(config.text.max_context, engine.page_size)
        self.mask_words = -(-config.text.vocab_size // 32) if engine.host_masks else 0
        self.prefix_pages = -(-config.text.prefix_attn // engine.page_size)
        self._device = next(iter(params.text.wte.sharding.device_set))
        self.kernels = Kernels(engine.kernels, Target.of(self._device))
        self._kv_dtype = FLOAT8 if engine.kv_dtype == "float8" else params.text.wte.dtype
        self.family = Family(config, automaton, self.table, self.mask_words, self.kernels)
        # The text programs do not take the vision leaves: every argument costs host time.
        self.text_params = dataclasses.replace(params, vision=None)
        self._compiled = self._compile_to_fit()

    def fresh_state(self) -> tuple[PagedCache, RowState]:
        with jax.default_device(self._device):  # made elsewhere and moved, a pool would need its size there too
            cache = PagedCache.zeros(self.config.text, self.pages, self.engine.page_size, self._kv_dtype)
            rows = RowState.zeros(self.engine.max_rows)
        return jax.device_put((cache, rows), self.params.text.wte.sharding)

    def __getitem__(self, key: tuple) -> Callable:
        return self._compiled[key]

    def _compile_to_fit(self) -> dict[tuple, Callable]:
        """Programs and a pool that fit beside each other: what programs need is estimated first, and known once they
        are compiled."""
        item = self.params.text.wte.dtype.itemsize
        keys = program_keys(self.buckets, self.engine.host_masks)
        self.pages = self._plan({key: estimate(key, self.config, self.engine, item) for key in keys}, "estimated").pages
        done = self._compile()
        plan = self._plan({key: compiled(program) for key, program in done.items()}, "compiled")
        if plan.pages < self.pages:
            self.pages = plan.pages
            done = self._compile()
        _log.info("memory of %s\n%s", self._device, "\n".join(dataclasses.replace(plan, pages=self.pages).lines()))
        return done

    def _plan(self, scratch: dict[Key, int], source: str) -> MemoryPlan:
        parts = {"vision": self.params.vision, "text": self.params.text, "region": self.params.region}
        weights = {
            name: sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(part)) for name, part in parts.items()
        }
        item = jnp.dtype(self._kv_dtype).itemsize
        return size_pool(self.config.text, self.engine, item, weights, scratch, source, *memory_of(self._device))

    def _compile(self) -> dict[tuple, Callable]:
        family = self.family
        cache, rows = jax.eval_shape(self.fresh_state)
        jobs: dict[tuple, Callable[[], Any]] = {}
        for batch in self.buckets.step:
            control = _ints(batch, len(Row) + self.table)
            jobs["step", batch] = partial(self._lower, partial(programs.step, family), (cache, rows, control))
        if self.mask_words:
            batch = self.buckets.step[-1]
            control, arguments = self._masked(batch)
            jobs["forward", batch] = partial(
                self._lower, partial(programs.forward, family), (cache, rows, control), (1,)
            )
            jobs["sample", batch] = partial(
                self._lower, partial(programs.sample, family), (rows, control, *arguments), (1,)
            )
        for batch, length in self.buckets.prefill:
            control = _ints(batch, len(Row) + self.table + self.mask_words + len(Prefill) + 4 * length)
            jobs["prefill", batch, length] = partial(
                self._lower, partial(programs.prefill, family), (cache, rows, control)
            )
        for images in self.buckets.prefix:
            text = self.config.text
            embeddings = jax.ShapeDtypeStruct((images, text.prefix_attn - 1, text.dim), self.params.text.wte.dtype)
            arguments = (cache, embeddings, _ints(images, self.prefix_pages))
            jobs["prefix", images] = partial(self._lower, partial(programs.prefix, family), arguments, (1,))
        for images, crops in self.buckets.vision:
            jobs["vision", images, crops] = partial(self._lower_vision, images, crops)
        names = {key: " ".join(map(str, key)) for key in jobs}
        _compiling.info("compiling %d programs: %s", len(jobs), ", ".join(names.values()))
        began = time.monotonic()
        done: dict[tuple, Callable] = {}
        pool = ThreadPoolExecutor(thread_name_prefix=COMPILING)
        try:
            under_way = {pool.submit(lambda job: job().compile(), job): key for key, job in jobs.items()}
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

    def _lower(self, function: Callable, arguments: tuple[Any, ...], donated: tuple[int, ...] = (1, 2)):
        """Lowers a text program; what it changes (cache, row state) is donated."""
        return jax.jit(function, donate_argnums=donated).lower(self.text_params, *arguments)

    def _masked(self, batch: int) -> tuple[jax.ShapeDtypeStruct, tuple[jax.ShapeDtypeStruct, ...]]:
        """Control, and hidden states, logits and mask, of a step in two."""
        text = self.config.text
        hidden = jax.ShapeDtypeStruct((batch, text.dim), self.params.text.wte.dtype)
        logits = jax.ShapeDtypeStruct((batch, text.vocab_size), jnp.float32)
        mask = jax.ShapeDtypeStruct((batch, self.mask_words), jnp.uint32)
        return _ints(batch, len(Row) + self.table), (hidden, logits, mask)

    def _lower_vision(self, images: int, crops: int):
        config = self.config.vision
        side = jax.ShapeDtypeStruct((crops, config.grid, config.grid), jnp.float32)
        pixels = jax.ShapeDtypeStruct((crops, config.crop_size, config.crop_size, 3), jnp.uint8)
        attention = _vision_attention(self.kernels, self.params.vision.pos_emb.dtype)

        def encode_images(params, pixels, rows, columns, image):
            return vision.embed_images(params, config, pixels, rows, columns, image, images, attention)

        return jax.jit(encode_images).lower(self.params.vision, pixels, side, side, _ints(crops))


def _vision_attention(kernels: Kernels, dtype: jnp.dtype) -> Attention:
    fused = kernels.backend in ("auto", "triton") and kernels.target is not None and kernels.target.platform == "cuda"
    return cudnn_attend if fused and dtype == jnp.bfloat16 else attend


class Device:
    """Threads cache and row state through the programs. Everything but `fetch` returns at once."""

    def __init__(self, programs: Programs):
        self._programs = programs
        self._control = ControlPacker(programs.engine.max_rows, programs.table, programs.mask_words)
        self._cache, self._rows = programs.fresh_state()

    def prefill(self, plan: PrefillPlan) -> tuple[np.ndarray, jax.Array]:
        """Enqueues vision, prefixes and prompts of a plan; returns (control of the last chunk, output).

        Raises:
          RequestFault: one of its requests cannot be packed; nothing has been enqueued.
        """
        programs = self._programs
        ids = max(s.prefill_length - s.prefix_length for s in plan.sequences)
        batch, length = _smallest(programs.buckets.prefill, lambda b: (b[0] >= len(plan.sequences), b[1] >= ids))
        chunks = -(-ids // length)
        bos = programs.config.tokenizer.bos_id
        # Everything is packed before anything is launched: what one request spoils, the others must not share.
        prefix = self._pack_prefix(plan.images) if plan.images else None
        controls = [
            self._control.prefill(plan.sequences, chunk, chunks, batch, length, programs.automaton, bos, plan.masks)
            for chunk in range(chunks)
        ]
        if prefix is not None:
            self._run_prefix(*prefix)
        run = programs["prefill", batch, length]
        for control in controls:
            self._cache, self._rows, output = run(programs.text_params, self._cache, self._rows, control)
        output.copy_to_host_async()
        return controls[-1], output

    def step(self, plan: StepPlan) -> tuple[np.ndarray, jax.Array]:
        """Enqueues a decode step; returns (control, output)."""
        programs = self._programs
        batch = next(rows for rows in programs.buckets.step if rows >= len(plan.sequences))
        control = self._control.step(plan.sequences, batch)
        run = programs["step", batch]
        self._cache, self._rows, output = run(programs.text_params, self._cache, self._rows, control)
        output.copy_to_host_async()
        return control, output

    def forward(self, plan: StepPlan) -> tuple[np.ndarray, Any]:
        """Enqueues the first part of a step; returns (control, what `sample` takes)."""
        programs = self._programs
        batch = programs.buckets.step[-1]
        control = self._control.step(plan.sequences, batch)
        run = programs["forward", batch]
        self._cache, hidden, logits = run(programs.text_params, self._cache, self._rows, control)
        return control, (control, hidden, logits)

    def sample(self, plan: StepPlan, pending: Any, masks: Masks) -> jax.Array:
        """Enqueues the second part of a step with the masks of some of its sequences; returns the output."""
        programs = self._programs
        control, hidden, logits = pending
        mask = self._control.masks(plan.sequences, len(control), masks)
        run = programs["sample", len(control)]
        self._rows, output = run(programs.text_params, self._rows, control, hidden, logits, mask)
        output.copy_to_host_async()
        return output

    def fetch(self, output: jax.Array) -> np.ndarray:
        """The only blocking read: int32 [B, Output]."""
        return np.asarray(output)

    def reset(self) -> None:
        """New, empty state after a device error."""
        self._cache = self._rows = None  # a pool that fills the memory does not fit twice
        self._cache, self._rows = self._programs.fresh_state()

    def close(self) -> None:
        """Lets go of the state and the programs; nothing can be run any more."""
        del self._cache, self._rows, self._programs

    def _pack_prefix(self, sequences: Many[Sequence]) -> tuple[tuple[int, int], tuple[np.ndarray, ...], np.ndarray]:
        """The bucket (images, crops) of some image prefixes, their packed crops and their pages."""
        programs = self._programs
        pictures = [(s, s.request.image.crops) for s in sequences if s.request.image is not None]
        total = sum(len(picture.pixels) for _, picture in pictures)
        bucket = next(b for b in programs.buckets.vision if b[0] >= len(sequences) and b[1] >= total)
        packed, start = empty_crops(bucket[1], programs.config), 0
        for index, (sequence, picture) in enumerate(pictures):
            try:
                start = add_crops(packed, start, index, picture, programs.config)
            except Exception as error:
                raise RequestFault(sequence) from error
        return bucket, packed, self._control.prefix(sequences, bucket[0], programs.prefix_pages)

    def _run_prefix(self, bucket: tuple[int, int], packed: tuple[np.ndarray, ...], pages: np.ndarray) -> None:
        programs = self._programs
        embeddings = programs["vision", *bucket](programs.params.vision, *packed)
        self._cache = programs["prefix", bucket[0]](programs.text_params, self._cache, embeddings, pages)


def memory_of(device: Any) -> tuple[int | None, int]:
    """(bytes that the allocator can hand out, bytes handed out already); (None, 0) on a CPU, which does not say."""
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit"), stats.get("bytes_in_use", 0)


def _smallest(buckets: tuple[tuple[int, int], ...], fits: Callable[[tuple[int, int]], tuple[bool, bool]]):
    """The first bucket that fits; if no length does, the longest of those with enough rows (prompts go in chunks)."""
    enough = [b for b in buckets if fits(b)[0]]
    rows = min(b[0] for b in enough)
    enough = [b for b in enough if b[0] == rows]
    return next((b for b in enough if fits(b)[1]), enough[-1])


def _ints(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)
