"""The real device: what is packed for each launch, and the one fetch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Many
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxphoton.engine.ahead import EncodeAhead
from jaxphoton.engine.buckets import Key
from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.control import ControlPacker, Masks
from jaxphoton.engine.followers import Leading
from jaxphoton.engine.launch import PrefillPlan, StepPlan, parts_of
from jaxphoton.engine.launcher import Launcher
from jaxphoton.engine.request import Sequence
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
        self._ahead, self._encodes_ahead = EncodeAhead(self._encode), programs.encodes_ahead

    def encode_ahead(self, sequence: Sequence | None) -> None:
        """Begins with the image of the request that is next, where that gains anything; None if there is none."""
        if self._encodes_ahead:
            self._ahead.follow(sequence)

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
                self._launch_block(part)
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
        self.encode_ahead(None)
        self.launch.reset()

    def close(self) -> None:
        """Lets go of the state and the programs; nothing can be run any more."""
        self._ahead.close()
        self.launch.close()
        del self.launch, self._programs, self._ahead

    def _launch_block(self, block: _Block) -> None:
        pictures = block.pictures
        if pictures.embeddings is None:
            self.launch(pictures.key, *pictures.packed)
        else:
            self.launch.hold(pictures.embeddings)
        self.launch(block.key, block.control)

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
        # Where images are encoded ahead, a launch has one.
        pictures = self._ahead.take(sequences[0]) or self._pack_pictures(sequences, None)
        longest = max(sequence.prefix_length for sequence in sequences)
        return self._pack_into(pictures, longest, partial(self._control.prefix, sequences))

    def _pack_block(self, plan: PrefillPlan, number: int) -> _Block:
        (sequence,) = plan.sequences
        start, stop = sequence.segments.blocks[number]
        pictures = self._pack_pictures([sequence], number)
        return self._pack_into(pictures, stop - start, partial(self._control.block, sequence, number))

    def _pack_into(self, pictures: _Pictures, longest: int, control: Callable[[int, int], np.ndarray]) -> _Block:
        """Where pictures of up to so many positions go; `control` packs their places given (pictures, ids)."""
        images, buckets = pictures.key[1], self._programs.buckets.prefix
        length = next(length for count, length in buckets if count == images and length >= longest)
        places = control(images, 0 if self._programs.family.fixed_prefix else length)
        return _Block(pictures, ("prefix", images, length), places)

    def _pack_pictures(self, sequences: Many[Sequence], number: int | None) -> _Pictures:
        """A picture of each sequence: the one at the end of its prefix, or that of a block behind it."""
        prepared = [s.request.image if number is None else s.request.further[number] for s in sequences]
        crops = [picture.crops for picture in prepared if picture is not None]
        total = sum(len(each.pixels) for each in crops)
        bucket = next(b for b in self._programs.buckets.vision if b[0] >= len(sequences) and b[1] >= total)

        @contextmanager
        def guard(index: int) -> Iterator[None]:
            try:
                yield
            except Exception as error:
                raise RequestFault(sequences[index]) from error

        return _Pictures(("vision", *bucket), self._programs.family.pack(crops, *bucket, guard))

    def _encode(self, sequence: Sequence) -> _Pictures:
        """Enqueues the encoding of a sequence's image; from any thread."""
        pictures = self._pack_pictures([sequence], None)
        return replace(pictures, embeddings=self.launch.encode(pictures.key, *pictures.packed))


@dataclass(frozen=True, slots=True, eq=False)
class _Pictures:
    """Packed pictures, the key of the program that encodes them, and what it has made of them where it was enqueued
    ahead."""

    key: Key
    packed: tuple[np.ndarray, ...]
    embeddings: jax.Array | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Image blocks to be written, the key of the program that does, and their places."""

    pictures: _Pictures
    key: Key
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
