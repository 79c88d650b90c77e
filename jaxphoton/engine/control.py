"""Packs plans into the int32 arrays that go up with a launch.

Every array is fresh: the device may still read the previous one (NumPy arguments are not copied).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Many

import numpy as np

from jaxphoton.constraints.automaton import TokenAutomaton
from jaxphoton.engine.layout import Output, Prefill, Row, float_bits, uint_bits
from jaxphoton.engine.sequence import Sequence
from jaxphoton.requests.errors import RequestFault
from jaxphoton.requests.tokens import Token

Masks = Mapping[Sequence, np.ndarray]  # uint32 [mask_words] of the sequences that the host restricts
NO_MASKS: Masks = {}

TOKEN, IMAGE, COORDINATE, SIZE = range(4)  # kinds of input, as in jaxphoton.models.moondream.inputs


class ControlPacker:
    """Keeps a line a row, so that a step copies lines instead of building them.

    Attributes:
      rows: of the row state; padding rows name the one behind them.
      table: width of a page-table row.
      mask_words: width of a host mask, 0 without host masks.
    """

    def __init__(self, rows: int, table: int, mask_words: int = 0):
        self.rows, self.table, self.mask_words = rows, table, mask_words
        self._lines = np.zeros((rows + 1, len(Row) + table), np.int32)
        self._lines[rows, Row.ROW] = rows
        # The page list that a line was made from, and its length then. A sequence gets a new list whenever it is
        # admitted, so this tells tenants apart as well as it tells growth.
        self._made_from: list[tuple[list[int] | None, int]] = [(None, 0)] * rows

    def step(self, sequences: Many[Sequence], batch: int) -> np.ndarray:
        """int32 [batch, Row + table].

        Raises:
          RequestFault: one of them cannot be packed (as in `prefill` and `prefix`).
        """
        rows = list[int]()
        for sequence in sequences:
            try:
                rows.append(self._line_of(sequence))
            except Exception as error:
                raise RequestFault(sequence) from error
        control = self._lines[rows + [self.rows] * (batch - len(rows))]
        launched = np.array([sequence.launched for sequence in sequences], np.int32)
        prompts = np.array([sequence.prompt_length for sequence in sequences], np.int32)
        control[: len(rows), Row.INDEX] = launched
        control[: len(rows), Row.POSITION] = prompts + launched - 1
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
        masks: Masks = NO_MASKS,
    ) -> np.ndarray:
        """Chunk number `chunk` of `chunks`, int32 [batch, Row + table + mask_words + Prefill + 4 length].

        Sequences are aligned at their end: the last chunk holds the last ids of all of them, and those with fewer
        ids sit out the first chunks.
        """
        start_of_mask = len(Row) + self.table
        start_of_extra = start_of_mask + self.mask_words
        control = np.zeros((batch, start_of_extra + len(Prefill) + 4 * length), np.int32)
        control[:, Row.ROW] = self.rows
        control[:, start_of_mask:start_of_extra] = self.masks(sequences, batch, masks).view(np.int32)
        for line, sequence in zip(control, sequences, strict=False):
            try:
                ids, kinds, values = prefill_inputs(sequence, bos)
                start = max(0, len(ids) - (chunks - chunk) * length)
                stop = max(0, len(ids) - (chunks - chunk - 1) * length)
                if stop == start:
                    continue
                line[:start_of_mask] = self._lines[self._line_of(sequence)]
                line[Row.POSITION], line[Row.INDEX] = sequence.prefix_length + start, len(sequence.tokens)
                extra = line[start_of_extra:]
                state, objects = replay(automaton, automaton.start[sequence.request.grammar], sequence.tokens)
                extra[Prefill.COUNT] = stop - start
                extra[Prefill.SAMPLE] = chunk == chunks - 1
                extra[Prefill.STATE], extra[Prefill.OBJECTS] = state, objects
                fed = extra[len(Prefill) :].reshape(4, length)[:, : stop - start]
                fed[0], fed[1] = ids[start:stop], kinds[start:stop]
                fed[2:] = values[start:stop].T.view(np.int32)
            except Exception as error:
                raise RequestFault(sequence) from error
        return control

    def masks(self, sequences: Many[Sequence], batch: int, masks: Masks) -> np.ndarray:
        """uint32 [batch, mask_words]: the masks given, all ones for everybody else."""
        words = np.full((batch, self.mask_words), 0xFFFFFFFF, np.uint32)
        for line, sequence in zip(words, sequences, strict=False):
            if sequence in masks:
                line[:] = masks[sequence]
        return words

    def prefix(self, images: Many[Sequence], batch: int, pages: int) -> np.ndarray:
        """Page numbers of the image prefixes, int32 [batch, pages]; zeros (the trash page) for padding."""
        control = np.zeros((batch, pages), np.int32)
        for line, sequence in zip(control, images, strict=False):
            try:
                line[:] = sequence.prefix_pages
            except Exception as error:
                raise RequestFault(sequence) from error
        return control

    def _line_of(self, sequence: Sequence) -> int:
        """The sequence's row, its line brought up to date."""
        row = sequence.row
        assert row is not None
        pages = sequence.pages
        made_from, length = self._made_from[row]
        if made_from is not pages or length != len(pages):
            self._made_from[row] = pages, len(pages)
            line, settings = self._lines[row], sequence.request.settings
            line[Row.ROW] = row
            line[Row.HOLE] = sequence.hole
            line[Row.TEMPERATURE] = float_bits(settings.temperature)
            line[Row.TOP_P] = float_bits(settings.top_p)
            line[Row.SEED] = uint_bits(settings.seed or 0)
            line[Row.MAX_TOKENS] = sequence.max_tokens
            # No more objects than tokens; and the setting may be larger than a column holds.
            line[Row.MAX_OBJECTS] = min(settings.max_objects, sequence.max_tokens)
            table = sequence.page_table
            line[len(Row) : len(Row) + len(table)] = table
            line[len(Row) + len(table) :] = 0
        return row


def checked_mask(mask: np.ndarray, words: int) -> np.ndarray:
    """A constraint's mask, uint32 [words].

    Raises:
      ValueError: it is of another shape or dtype.
    """
    mask = np.asarray(mask)
    if mask.shape != (words,) or mask.dtype != np.uint32:
        raise ValueError(f"a mask must be uint32 [{words}], not {mask.dtype} {list(mask.shape)}")
    return mask


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

    def read(self, output: np.ndarray) -> Iterator[tuple[Token, int]]:
        """The token and the finish code of every row of an output, int32 [B, Output]."""
        logprobs = np.ascontiguousarray(output[:, Output.LOGPROB]).view(np.float32).tolist()
        for (token, first, second, finish, _), logprob in zip(output.tolist(), logprobs, strict=True):
            if first < 0:
                yield Token(token, logprob=logprob), finish
            elif token == self._size_id:
                value = (float(self._sizes[first]), float(self._sizes[second]))
                yield Token(token, (first, second), value, logprob), finish
            else:
                yield Token(token, (first,), (float(self._coordinates[first]),), logprob), finish
