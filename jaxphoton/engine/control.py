"""Packs plans into the int32 arrays that go up with a launch.

Every array is fresh: the device may still read the previous one (NumPy arguments are not copied).
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np

from jaxphoton.engine.layout import Output, Prefill, Row, float_bits, uint_bits
from jaxphoton.engine.sequence import Sequence
from jaxphoton.skills.automaton import TokenAutomaton
from jaxphoton.skills.base import Token

TOKEN, IMAGE, COORDINATE, SIZE = range(4)  # kinds of input, as in jaxphoton.model.inputs


@dataclass(frozen=True, slots=True)
class ControlShape:
    """Attributes:
    rows: of the row state; padding rows name the one behind them.
    table: width of a page-table row.
    """

    rows: int
    table: int

    def step(self, sequences: Many[Sequence], batch: int) -> np.ndarray:
        """int32 [batch, Row + table]."""
        control = np.zeros((batch, len(Row) + self.table), np.int32)
        control[:, Row.ROW] = self.rows
        for line, sequence in zip(control, sequences, strict=False):
            self._fill_row(line, sequence, sequence.step_position, sequence.launched)
        return control

    def prefill(
        self,
        sequences: Many[Sequence],
        chunk: int,
        chunks: int,
        batch: int,
        length: int,
        automaton: TokenAutomaton,
        bos: int,
    ) -> np.ndarray:
        """Chunk number `chunk` of `chunks`, int32 [batch, Row + table + Prefill + 4 length].

        Sequences are aligned at their end: the last chunk holds the last ids of all of them, and those with fewer
        ids sit out the first chunks.
        """
        control = np.zeros((batch, len(Row) + self.table + len(Prefill) + 4 * length), np.int32)
        control[:, Row.ROW] = self.rows
        for line, sequence in zip(control, sequences, strict=False):
            ids, kinds, values = prefill_inputs(sequence, bos)
            start = max(0, len(ids) - (chunks - chunk) * length)
            stop = max(0, len(ids) - (chunks - chunk - 1) * length)
            if stop == start:
                continue
            position = sequence.prefix_length + start
            self._fill_row(line, sequence, position, len(sequence.tokens))
            extra = line[len(Row) + self.table :]
            state, objects = replay(automaton, automaton.start[sequence.request.grammar], sequence.tokens)
            extra[Prefill.COUNT] = stop - start
            extra[Prefill.SAMPLE] = chunk == chunks - 1
            extra[Prefill.STATE], extra[Prefill.OBJECTS] = state, objects
            fed = extra[len(Prefill) :].reshape(4, length)[:, : stop - start]
            fed[0], fed[1] = ids[start:stop], kinds[start:stop]
            fed[2:] = values[start:stop].T.view(np.int32)
        return control

    def prefix(self, images: Many[Sequence], batch: int, pages: int) -> np.ndarray:
        """Page numbers of the image prefixes, int32 [batch, pages]; zeros (the trash page) for padding."""
        control = np.zeros((batch, pages), np.int32)
        for line, sequence in zip(control, images, strict=False):
            line[:] = sequence.prefix_pages
        return control

    def _fill_row(self, line: np.ndarray, sequence: Sequence, position: int, index: int) -> None:
        settings = sequence.request.settings
        line[Row.ROW] = sequence.row
        line[Row.POSITION] = position
        line[Row.HOLE] = sequence.hole
        line[Row.INDEX] = index
        line[Row.TEMPERATURE] = float_bits(settings.temperature)
        line[Row.TOP_P] = float_bits(settings.top_p)
        line[Row.SEED] = uint_bits(settings.seed or 0)
        line[Row.MAX_TOKENS] = sequence.max_tokens
        line[Row.MAX_OBJECTS] = settings.max_objects
        table = sequence.page_table
        line[len(Row) : len(Row) + len(table)] = table


def prefill_inputs(sequence: Sequence, bos: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a prefill feeds behind the image prefix: ids int32 [T], kinds int32 [T], values float32 [T, 2].

    That is the prompt (with BOS where no image carries it) and, after a set-back, all committed tokens.
    """
    prompt = sequence.request.prompt
    lead = [] if sequence.prefix_length else [bos]
    ids = np.array([*lead, *prompt.ids, *(token.id for token in sequence.tokens)], np.int32)
    kinds = np.full(len(ids), TOKEN, np.int32)
    values = np.zeros((len(ids), 2), np.float32)
    offset = len(lead) + len(prompt.ids)
    fed = [(len(lead) + place, value) for place, value in prompt.values]
    fed += [(offset + i, token.value) for i, token in enumerate(sequence.tokens) if token.value is not None]
    for place, value in fed:
        kinds[place] = COORDINATE if len(value) == 1 else SIZE
        values[place, : len(value)] = value
    return ids, kinds, values


def replay(automaton: TokenAutomaton, state: int, tokens: Many[Token]) -> tuple[int, int]:
    """The automaton's state and the count of completed objects after `tokens`."""
    objects = 0
    for token in tokens:
        objects += bool(automaton.completes[state, automaton.token_class[token.id]])
        state = automaton.advance(state, token.id)
    return state, objects


class TokenReader:
    """Reads output rows back into tokens. `coordinates` and `sizes` are the float32 values of the bins."""

    def __init__(self, size_id: int, coordinates: np.ndarray, sizes: np.ndarray):
        self._size_id, self._coordinates, self._sizes = size_id, coordinates, sizes

    def read(self, line: np.ndarray) -> Token:
        """One row of an output, int32 [Output]."""
        token, first, second = (int(line[c]) for c in (Output.TOKEN, Output.BIN_0, Output.BIN_1))
        logprob = float(line[Output.LOGPROB : Output.LOGPROB + 1].view(np.float32)[0])
        if first < 0:
            return Token(token, logprob=logprob)
        if token == self._size_id:
            value = (float(self._sizes[first]), float(self._sizes[second]))
            return Token(token, (first, second), value, logprob)
        return Token(token, (first,), (float(self._coordinates[first]),), logprob)
