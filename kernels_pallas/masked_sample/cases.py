"""Shapes shared by tests and benchmarks: small ones for the interpreter, real ones for a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

STATES = 20  # of an automaton


@dataclass(frozen=True, slots=True)
class Case:
    """One call of `masked_sample`.

    Attributes:
      name: for reports.
      rows, columns: B, V.
      temperature, top_p: dealt to the rows in turn.
      table, mask: whether rows are restricted by an automaton's table, and by bits of their own.
    """

    name: str
    rows: int
    columns: int
    temperature: tuple[float, ...] = (0.2,)
    top_p: tuple[float, ...] = (1.0,)
    table: bool = False
    mask: bool = False

    def inputs(self, seed: int = 0) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments. Bits are all ones, one in two, or a single one, by state and row."""
        random = np.random.default_rng(seed)
        arguments = (
            random.normal(0, 3, (self.rows, self.columns)).astype(np.float32),
            np.resize(np.asarray(self.temperature, np.float32), self.rows),
            np.resize(np.asarray(self.top_p, np.float32), self.rows),
            random.integers(0, 2**32, self.rows, np.uint32),
            random.integers(0, 768, self.rows, np.int32),
        )
        keywords: dict[str, Any] = {"stream": 0}
        if self.table:
            keywords["table"] = self._bits(random, STATES)
            keywords["state"] = random.integers(0, STATES, self.rows, np.int32)
        if self.mask:
            keywords["mask"] = self._bits(random, self.rows)
        return arguments, keywords

    def bytes(self) -> int:
        """Least memory traffic: the logits and the bits of every row, once."""
        return self.rows * (4 * self.columns + (self.table + self.mask) * 4 * self._words())

    def _words(self) -> int:
        return -(-self.columns // 32)

    def _bits(self, random: np.random.Generator, lines: int) -> np.ndarray:
        words = random.integers(0, 2**32, (lines, self._words()), np.uint32)
        words[::3] = 2**32 - 1
        words[2::6] = 0
        for line in range(2, lines, 6):
            column = random.integers(self.columns)
            words[line, column // 32] = 1 << (column % 32)
        return words


_MIXED: dict[str, Any] = {
    "temperature": (0.0, 1e-6, 0.2, 1.0, 100.0),
    "top_p": (0.0, 1e-6, 0.5, 0.9, 0.9, 1.0, 0.99),
}

SMALL = (
    Case("few", 35, 5, mask=True, **_MIXED),
    Case("table", 35, 1000, table=True, **_MIXED),
    Case("both", 16, 5003, table=True, mask=True, **_MIXED),
    Case("blocks", 32, 6000, temperature=(1.0, 3.0), top_p=(0.05, 0.3, 0.6)),
)

_MODES: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": (0.0,)},
    "sampled": {"temperature": (0.7,)},
    "top-p": {"temperature": (0.2,), "top_p": (0.9,)},  # what requests ask for by default
    "flat-top-p": {"temperature": (2.0,), "top_p": (0.9,)},  # the most there is to sum
}


def _real(rows: int, mode: str) -> tuple[Case, ...]:
    return (
        Case(f"tokens-{mode}-{rows}", rows, 51200, table=True, **_MODES[mode]),
        Case(f"bins-{mode}-{rows}", rows, 1024, **_MODES[mode]),
    )


_OF_LLAMA = (("greedy", 8), ("greedy", 32), ("top-p", 32))

REAL = (
    *(case for rows in (1, 8, 32, 64) for mode in _MODES for case in _real(rows, mode)),
    Case("tokens-host-mask-8", 8, 51200, table=True, mask=True, **_MODES["top-p"]),
    *(Case(f"llama-{mode}-{rows}", rows, 128256, table=True, **_MODES[mode]) for mode, rows in _OF_LLAMA),
)
