"""Programs on the state that they change: what lies on the device from one launch to the next."""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import Any

import jax

from jaxphoton.engine.buckets import Key
from jaxphoton.engine.compiled import Programs


class Launcher:
    """Threads cache, row state and slots of adapters through the programs; nothing here waits for the device.

    Launches of the same programs with the same arrays in the same order leave the same state, wherever they run.

    Attributes:
      cache, rows, pool: the state.
      decoder: parameters and slots, which all programs of the text decoder but `sample` take.
    """

    def __init__(self, programs: Programs):
        self._programs = programs
        self._fill()

    def __call__(self, key: Key, *arrays: Any) -> Any:
        """Enqueues a program, and returns what a host may wait for: the output of `prefill`, `step` and `sample`, and
        the hidden states of `forward`.

        `prefix` takes the embeddings of the `vision` before it, and `sample` what the `forward` before it has returned.

        Args:
          arrays: beside the state. Of `adapter` the leaves of what is put there, and the number of the slot.
        """
        run = self._programs[key]
        match key[0]:
            case "vision":
                self._before = self.encode(key, *arrays)
            case "prefix":
                self.cache = run(self.decoder, self.cache, self._taken(), *arrays)
            case "prefill" | "step":
                self.cache, self.rows, output = run(self.decoder, self.cache, self.rows, *arrays)
                return output
            case "forward":
                self.cache, hidden, logits = run(self.decoder, self.cache, self.rows, *arrays)
                self._before = hidden, logits
                return hidden
            case "sample":
                control, mask = arrays
                self.rows, output = run(self._programs.decoder, self.rows, control, *self._taken(), mask)
                return output
            case "adapter":
                *leaves, slot = arrays
                self._set_pool(jax.tree.leaves(run(self.pool, self._programs.as_adapter(leaves), slot)))
        return None

    def encode(self, key: Key, *arrays: Any) -> jax.Array:
        """Enqueues a `vision` program and returns the embeddings; from any thread, as it changes nothing."""
        return self._programs[key](self._programs.encoder, *arrays)

    def hold(self, embeddings: jax.Array) -> None:
        """What the next `prefix` takes, in place of those of a `vision` before it."""
        self._before = embeddings

    def reset(self) -> None:
        """New, empty state after a device error."""
        self.close()  # what fills the memory does not fit twice
        self._fill()

    def close(self) -> None:
        """Lets go of the state."""
        self.cache = self.rows = self.pool = self.decoder = self._before = None

    def _fill(self) -> None:
        """Empty state, and empty slots."""
        self._before: Any = None
        self.cache, self.rows = self._programs.fresh_state()
        self._set_pool(self._programs.fresh_pool())

    def _set_pool(self, pool: Many[jax.Array]) -> None:
        self.pool: Any = pool
        self.decoder: Any = [*self._programs.decoder, *pool]

    def _taken(self) -> Any:
        """What the program before has left, which nobody refers to then."""
        before, self._before = self._before, None
        return before
