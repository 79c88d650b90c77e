"""The real device: what is packed for each launch, and the one fetch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Many
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxphoton.engine.buckets import Key
from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.control import ControlPacker, Masks
from jaxphoton.engine.followers import Leading
from jaxphoton.engine.launch import PrefillPlan, StepPlan, parts_of
from jaxphoton.engine.launcher import Launcher
from jaxphoton.engine.request import Sequence
from jaxphoton.image.crops import Crops
from jaxphoton.processes.peers import Leader
from jaxphoton.requests.errors import RequestFault


class Device:
    """Packs what is planned and launches it. Everything but `fetch` returns at once.

    Attributes:
      launch: which runs the programs.
    """

    def __init__(self, programs: Programs):
        self._programs = programs
        rows, readout = programs.engine.max_rows, programs.family.readout
        adapters = programs.engine.adapter_slots > 0
        self._control = ControlPacker(rows, programs.table, programs.mask_words, readout, adapters)
        peers = programs.peers
        self.launch = Leading(programs, peers) if isinstance(peers, Leader) else Launcher(programs)

    def prefill(self, plan: PrefillPlan) -> tuple[np.ndarray, jax.Array]:
        """Enqueues vision, image blocks and prompts of a plan; returns (control of the last chunk, output).

        Raises:
          RequestFault: one of its requests cannot be packed; nothing has been enqueued.
        """
        # Everything is packed before anything is launched: what one request spoils, the others must not share.
        packed = list[_Block | _Chunk]([self._pack_prefix(plan.images)] if plan.images else [])
        for where in parts_of(plan):
            packed += self._pack_text(plan, where) if isinstance(where, slice) else [self._pack_block(plan, where)]
        for sequence in plan.adapters:
            assert sequence.staged is not None
            self._put(sequence.staged.arrays, sequence.adapter_slot)
        for part in packed:
            if isinstance(part, _Block):
                self.launch(part.vision, *part.packed)
                self.launch(part.into, part.control)
            else:
                output = self.launch(part.key, part.control)
        output.copy_to_host_async()
        return packed[-1].control, output

    def step(self, plan: StepPlan) -> tuple[np.ndarray, jax.Array]:
        """Enqueues a decode step; returns (control, output)."""
        programs = self._programs
        batch = next(rows for rows in programs.buckets.step if rows >= len(plan.sequences))
        control = self._control.step(plan.sequences, batch)
        output = self.launch(("step", batch), control)
        output.copy_to_host_async()
        return control, output

    def forward(self, plan: StepPlan) -> tuple[np.ndarray, Any]:
        """Enqueues the first part of a step; returns (control, what `sample` takes)."""
        batch = self._programs.buckets.step[-1]
        control = self._control.step(plan.sequences, batch)
        hidden = self.launch(("forward", batch), control)
        return control, (control, hidden)

    def sample(self, plan: StepPlan, pending: Any, masks: Masks) -> jax.Array:
        """Enqueues the second part of a step with the masks of some of its sequences; returns the output."""
        control, _ = pending
        mask = self._control.masks(plan.sequences, len(control), masks)
        output = self.launch(("sample", len(control)), control, mask)
        output.copy_to_host_async()
        return output

    def fetch(self, output: jax.Array) -> np.ndarray:
        """The only blocking read: int32 [B, Output]."""
        return np.asarray(output)

    def reset(self) -> None:
        """New, empty state after a device error."""
        self.launch.reset()

    def close(self) -> None:
        """Lets go of the state and the programs; nothing can be run any more."""
        self.launch.close()
        del self.launch, self._programs

    def _put(self, arrays: Any, slot: int) -> None:
        """Enqueues the program that puts an adapter into a slot."""
        key = "adapter", self._programs.engine.adapter_slots
        self.launch(key, *jax.tree.leaves(arrays), np.array(slot, np.int32))

    def _pack_text(self, plan: PrefillPlan, run: slice) -> list[_Chunk]:
        """The chunks of a run of the ids of all sequences."""
        programs = self._programs
        ids = max(len(range(*run.indices(s.prefill_length - s.prefix_length))) for s in plan.sequences)
        batch, length = _smallest(programs.buckets.prefill, lambda b: (b[0] >= len(plan.sequences), b[1] >= ids))
        chunks = -(-ids // length)
        what = (batch, length, programs.automaton, plan.masks, run)
        controls = (self._control.prefill(plan.sequences, chunk, chunks, *what) for chunk in range(chunks))
        return [_Chunk(("prefill", batch, length), control) for control in controls]

    def _pack_prefix(self, sequences: Many[Sequence]) -> _Block:
        pictures = [sequence.request.image.crops for sequence in sequences if sequence.request.image is not None]
        longest = max(sequence.prefix_length for sequence in sequences)
        return self._pack_images(sequences, pictures, longest, partial(self._control.prefix, sequences))

    def _pack_block(self, plan: PrefillPlan, number: int) -> _Block:
        (sequence,) = plan.sequences
        start, stop = sequence.segments.blocks[number]
        pictures = [sequence.request.further[number].crops]
        return self._pack_images([sequence], pictures, stop - start, partial(self._control.block, sequence, number))

    def _pack_images(
        self,
        sequences: Many[Sequence],
        pictures: Many[Crops],
        longest: int,
        control: Callable[[int, int], np.ndarray],
    ) -> _Block:
        """A picture of each sequence, of up to so many positions; `control` packs their places given (batch, ids)."""
        family, buckets = self._programs.family, self._programs.buckets
        total = sum(len(picture.pixels) for picture in pictures)
        images, crops = next(b for b in buckets.vision if b[0] >= len(sequences) and b[1] >= total)
        length = next(length for count, length in buckets.prefix if count == images and length >= longest)

        @contextmanager
        def guard(index: int) -> Iterator[None]:
            try:
                yield
            except Exception as error:
                raise RequestFault(sequences[index]) from error

        packed = family.pack(pictures, images, crops, guard)
        places = control(images, 0 if family.fixed_prefix else length)
        return _Block(("vision", images, crops), packed, ("prefix", images, length), places)


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Image blocks to be written: the keys of both programs, the packed pictures and their places."""

    vision: Key
    packed: tuple[np.ndarray, ...]
    into: Key
    control: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class _Chunk:
    """A chunk of prompts."""

    key: Key
    control: np.ndarray


def _smallest(buckets: tuple[tuple[int, int], ...], fits: Callable[[tuple[int, int]], tuple[bool, bool]]):
    """The first bucket that fits; if no length does, the longest of those with enough rows (prompts go in chunks)."""
    enough = [b for b in buckets if fits(b)[0]]
    rows = min(b[0] for b in enough)
    enough = [b for b in enough if b[0] == rows]
    return next((b for b in enough if fits(b)[1]), enough[-1])
