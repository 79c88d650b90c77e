"""The real device: the state that is threaded through the programs, launches, and the one fetch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Many
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from jaxphoton.engine.buckets import Key
from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.control import ControlPacker, Masks
from jaxphoton.engine.launch import PrefillPlan, StepPlan
from jaxphoton.engine.request import Sequence
from jaxphoton.requests.errors import RequestFault


class Device:
    """Threads cache, row state and adapters through the programs. Everything but `fetch` returns at once."""

    def __init__(self, programs: Programs):
        self._programs = programs
        rows, readout = programs.engine.max_rows, programs.family.readout
        adapters = programs.engine.adapter_slots > 0
        self._control = ControlPacker(rows, programs.table, programs.mask_words, readout, adapters)
        self._fill()

    def prefill(self, plan: PrefillPlan) -> tuple[np.ndarray, jax.Array]:
        """Enqueues vision, prefixes and prompts of a plan; returns (control of the last chunk, output).

        Raises:
          RequestFault: one of its requests cannot be packed; nothing has been enqueued.
        """
        programs = self._programs
        ids = max(s.prefill_length - s.prefix_length for s in plan.sequences)
        batch, length = _smallest(programs.buckets.prefill, lambda b: (b[0] >= len(plan.sequences), b[1] >= ids))
        chunks = -(-ids // length)
        # Everything is packed before anything is launched: what one request spoils, the others must not share.
        prefix = self._pack_prefix(plan.images) if plan.images else None
        controls = [
            self._control.prefill(plan.sequences, chunk, chunks, batch, length, programs.automaton, plan.masks)
            for chunk in range(chunks)
        ]
        for sequence in plan.adapters:
            assert sequence.staged is not None
            self._put(sequence.staged.arrays, sequence.adapter_slot)
        if prefix is not None:
            vision, pictures, into, pages = prefix
            embeddings = programs[vision](programs.encoder, *pictures)
            self._cache = programs[into](self._decoder, self._cache, embeddings, pages)
        run = programs["prefill", batch, length]
        for control in controls:
            self._cache, self._rows, output = run(self._decoder, self._cache, self._rows, control)
        output.copy_to_host_async()
        return controls[-1], output

    def step(self, plan: StepPlan) -> tuple[np.ndarray, jax.Array]:
        """Enqueues a decode step; returns (control, output)."""
        programs = self._programs
        batch = next(rows for rows in programs.buckets.step if rows >= len(plan.sequences))
        control = self._control.step(plan.sequences, batch)
        run = programs["step", batch]
        self._cache, self._rows, output = run(self._decoder, self._cache, self._rows, control)
        output.copy_to_host_async()
        return control, output

    def forward(self, plan: StepPlan) -> tuple[np.ndarray, Any]:
        """Enqueues the first part of a step; returns (control, what `sample` takes)."""
        programs = self._programs
        batch = programs.buckets.step[-1]
        control = self._control.step(plan.sequences, batch)
        run = programs["forward", batch]
        self._cache, hidden, logits = run(self._decoder, self._cache, self._rows, control)
        return control, (control, hidden, logits)

    def sample(self, plan: StepPlan, pending: Any, masks: Masks) -> jax.Array:
        """Enqueues the second part of a step with the masks of some of its sequences; returns the output."""
        programs = self._programs
        control, hidden, logits = pending
        mask = self._control.masks(plan.sequences, len(control), masks)
        run = programs["sample", len(control)]
        self._rows, output = run(programs.decoder, self._rows, control, hidden, logits, mask)
        output.copy_to_host_async()
        return output

    def fetch(self, output: jax.Array) -> np.ndarray:
        """The only blocking read: int32 [B, Output]."""
        return np.asarray(output)

    def reset(self) -> None:
        """New, empty state after a device error."""
        self._cache = self._rows = self._pool = self._decoder = None  # what fills the memory does not fit twice
        self._fill()

    def close(self) -> None:
        """Lets go of the state and the programs; nothing can be run any more."""
        del self._cache, self._rows, self._pool, self._decoder, self._programs

    def _fill(self) -> None:
        """Empty state, and empty slots."""
        self._cache, self._rows = self._programs.fresh_state()
        self._pool = self._programs.fresh_pool()
        self._decoder = [
            *self._programs.decoder,
            *self._pool,
        ]  # what all programs of the text decoder but `sample` take

    def _put(self, arrays: Any, slot: int) -> None:
        """Enqueues the program that puts an adapter into a slot."""
        programs = self._programs
        run, index = programs["adapter", programs.engine.adapter_slots], np.array(slot, np.int32)
        self._pool = jax.tree.leaves(run(self._pool, arrays, index))
        self._decoder = [*programs.decoder, *self._pool]

    def _pack_prefix(self, sequences: Many[Sequence]) -> tuple[Key, tuple[np.ndarray, ...], Key, np.ndarray]:
        """The keys of both programs of some image prefixes, their packed pictures and their control."""
        programs = self._programs
        family = programs.family
        pictures = [sequence.request.image.crops for sequence in sequences if sequence.request.image is not None]
        total = sum(len(picture.pixels) for picture in pictures)
        images, crops = next(b for b in programs.buckets.vision if b[0] >= len(sequences) and b[1] >= total)
        longest = max(sequence.prefix_length for sequence in sequences)
        length = next(n for n in family.prefix_lengths if n >= longest)

        @contextmanager
        def guard(index: int) -> Iterator[None]:
            try:
                yield
            except Exception as error:
                raise RequestFault(sequences[index]) from error

        packed = family.pack(pictures, images, crops, guard)
        ids = 0 if family.fixed_prefix else length
        control = self._control.prefix(sequences, images, programs.prefix_pages(length), ids)
        return ("vision", images, crops), packed, ("prefix", images, length), control


def _smallest(buckets: tuple[tuple[int, int], ...], fits: Callable[[tuple[int, int]], tuple[bool, bool]]):
    """The first bucket that fits; if no length does, the longest of those with enough rows (prompts go in chunks)."""
    enough = [b for b in buckets if fits(b)[0]]
    rows = min(b[0] for b in enough)
    enough = [b for b in enough if b[0] == rows]
    return next((b for b in enough if fits(b)[1]), enough[-1])
