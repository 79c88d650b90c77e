"""The packed int32 arrays that go up with a launch and come back from it. Floats travel as bits.

With adapters all that go up have one more column, the last: the slots of the rows' adapters.

Every array that goes up is fresh: the device may still read the previous one (NumPy arguments are not copied).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Many
from enum import IntEnum, auto

import numpy as np

from jaxphoton.constraints.automaton import TokenAutomaton
from jaxphoton.engine.request import Sequence
from jaxphoton.models.adapters import NO_SLOT
from jaxphoton.models.protocol import Readout
from jaxphoton.requests.errors import RequestFault
from jaxphoton.requests.tokens import Token

Masks = Mapping[Sequence, np.ndarray]  # uint32 [mask_words] of the sequences that the host restricts
NO_MASKS: Masks = {}


class _Column(IntEnum):
    @staticmethod
    def _generate_next_value_(name, start, count, last_values):
        return count


class Row(_Column):
    """What every launched row carries, in a step and in a prefill alike; its page table follows."""

    ROW = auto()  # of the row state; one past the last for padding
    POSITION = auto()  # logical position of the first id that is fed
    PREFIX = auto()  # length of its image prefix; 0 for text only
    INDEX = auto()  # number of the generated token that is sampled
    TEMPERATURE = auto()  # float bits
    TOP_P = auto()  # float bits
    SEED = auto()  # uint32 bits
    MAX_TOKENS = auto()
    MAX_OBJECTS = auto()


class Prefill(_Column):
    """What a prefill carries besides, behind page table and host mask; then ids [T] and what they carry, [F, T]."""

    COUNT = auto()  # ids of this chunk that are real
    SAMPLE = auto()  # 1 if this is the sequence's last chunk
    STATE = auto()  # automaton state in which the token is sampled
    OBJECTS = auto()  # objects completed before it


class Block(_Column):
    """What an image block has, behind its page table; in a family whose blocks differ then its ids, [P]."""

    START = auto()  # logical position of its first
    COUNT = auto()  # of positions; 0 for padding
    PREFIX = auto()  # length of the sequence's image prefix, behind which its pages have a gap


class Output(_Column):
    """One row that comes back; the columns of the family's readout follow."""

    TOKEN = auto()
    FINISH = auto()  # one of the codes below
    LOGPROB = auto()  # float bits


ZOMBIE, RUNNING, STOP, LENGTH = -1, 0, 1, 2  # FINISH codes; ZOMBIE: the row had ended before this launch

TOKEN_STREAM = 0  # of random words; those of a readout are 1 and up


class ControlPacker:
    """Keeps a line a row, so that a step copies lines instead of building them.

    Attributes:
      rows: of the row state; padding rows name the one behind them.
      table: width of a page-table row.
      mask_words: width of a host mask, 0 without host masks.
      readout: of the family.
      slots: columns of adapters' slots: 1, or 0 without adapters.
    """

    def __init__(
        self, rows: int, table: int, mask_words: int = 0, readout: Readout | None = None, adapters: bool = False
    ):
        self.rows, self.table, self.mask_words, self.readout = rows, table, mask_words, readout
        self.slots = int(adapters)
        self._lines = np.zeros((rows + 1, len(Row) + table + self.slots), np.int32)
        self._lines[rows, Row.ROW] = rows
        self._lines[:, len(Row) + table :] = NO_SLOT
        # The page list that a line was made from, and its length then. A sequence gets a new list whenever it is
        # admitted, so this tells tenants apart as well as it tells growth.
        self._made_from: list[tuple[list[int] | None, int]] = [(None, 0)] * rows

    def step(self, sequences: Many[Sequence], batch: int) -> np.ndarray:
        """int32 [batch, Row + table (+ 1)].

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
        masks: Masks = NO_MASKS,
        run: slice = slice(None),
    ) -> np.ndarray:
        """Chunk number `chunk` of `chunks`, int32 [batch, Row + table + mask_words + Prefill + (1 + F) length (+ 1)].

        Sequences are aligned at their end: the last chunk holds the last ids of all of them, and those with fewer
        ids sit out the first chunks. A `run` is the part of the ids that goes, of a sequence that goes alone; only
        behind the last id a token is sampled.
        """
        start_of_mask, parts = len(Row) + self.table, 1 + (self.readout.fed if self.readout else 0)
        start_of_extra = start_of_mask + self.mask_words
        start_of_slots = start_of_extra + len(Prefill) + parts * length
        control = np.zeros((batch, start_of_slots + self.slots), np.int32)
        control[:, Row.ROW] = self.rows
        control[:, start_of_slots:] = NO_SLOT
        control[:, start_of_mask:start_of_extra] = self.masks(sequences, batch, masks).view(np.int32)
        for line, sequence in zip(control, sequences, strict=False):
            try:
                ids, fed = prefill_inputs(sequence, self.readout)
                first, end, _ = run.indices(len(ids))
                start = max(first, end - (chunks - chunk) * length)
                stop = max(first, end - (chunks - chunk - 1) * length)
                if stop == start:
                    continue
                line[:start_of_mask] = self._lines[self._line_of(sequence), :start_of_mask]
                line[start_of_slots:] = sequence.adapter_slot
                line[Row.POSITION], line[Row.INDEX] = sequence.prefix_length + start, len(sequence.tokens)
                extra = line[start_of_extra:]
                state, objects = replay(automaton, automaton.start[sequence.request.grammar], sequence.tokens)
                extra[Prefill.COUNT] = stop - start
                extra[Prefill.SAMPLE] = stop == len(ids)
                extra[Prefill.STATE], extra[Prefill.OBJECTS] = state, objects
                inputs = line[start_of_extra + len(Prefill) : start_of_slots].reshape(parts, length)[:, : stop - start]
                inputs[0], inputs[1:] = ids[start:stop], fed[start:stop].T
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

    def prefix(self, images: Many[Sequence], batch: int, ids: int = 0) -> np.ndarray:
        """Image prefixes, int32 [batch, table + Block + ids (+ 1)]: the page table (the trash page for padding),
        and with `ids` of a bucket those of each, padded with zeros."""
        control = self._no_blocks(batch, ids)
        for line, sequence in zip(control, images, strict=False):
            try:
                line[: len(sequence.prefix_pages)] = sequence.prefix_pages
                self._fill_block(line, 0, sequence.segments.prefix, sequence, ids)
            except Exception as error:
                raise RequestFault(sequence) from error
        return control

    def block(self, sequence: Sequence, number: int, batch: int, ids: int = 0) -> np.ndarray:
        """The same of one further image block of a sequence."""
        control = self._no_blocks(batch, ids)
        try:
            start, stop = sequence.segments.blocks[number]
            control[0, : len(sequence.page_table)] = sequence.page_table
            block = sequence.segments.ids[start:stop]
            self._fill_block(control[0], sequence.prefix_length + start, block, sequence, ids)
        except Exception as error:
            raise RequestFault(sequence) from error
        return control

    def _no_blocks(self, batch: int, ids: int) -> np.ndarray:
        width = self.table + len(Block) + ids
        control = np.zeros((batch, width + self.slots), np.int32)
        control[:, width:] = NO_SLOT
        return control

    def _fill_block(self, line: np.ndarray, start: int, block: np.ndarray, sequence: Sequence, ids: int) -> None:
        extra = line[self.table :]
        extra[Block.START], extra[Block.COUNT] = start, len(block)
        extra[Block.PREFIX] = sequence.prefix_length
        extra[len(Block) + ids :] = sequence.adapter_slot
        if ids:
            extra[len(Block) : len(Block) + len(block)] = block

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
            line[Row.PREFIX] = sequence.prefix_length
            line[Row.TEMPERATURE] = float_bits(settings.temperature)
            line[Row.TOP_P] = float_bits(settings.top_p)
            line[Row.SEED] = np.uint32(settings.seed or 0).view(np.int32)
            line[Row.MAX_TOKENS] = sequence.max_tokens
            # No more objects than tokens; and the setting may be larger than a column holds.
            line[Row.MAX_OBJECTS] = min(settings.max_objects, sequence.max_tokens)
            table = sequence.page_table
            line[len(Row) : len(Row) + len(table)] = table
            line[len(Row) + len(table) : len(Row) + self.table] = 0
            line[len(Row) + self.table :] = sequence.adapter_slot
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


def prefill_inputs(sequence: Sequence, readout: Readout | None) -> tuple[np.ndarray, np.ndarray]:
    """What a prefill feeds behind the image prefix: ids int32 [T], what they carry int32 [T, F].

    That is the rest of the prompt and, after a preemption, all committed tokens.
    """
    prompt, tokens = sequence.segments, sequence.tokens
    ids = np.concatenate([prompt.ids, np.array([token.id for token in tokens], np.int32)])
    fed = np.zeros((len(ids), prompt.fed.shape[1]), np.int32)
    fed[: len(prompt.ids)] = prompt.fed
    for place, token in enumerate(tokens, len(prompt.ids)):
        if readout is not None and token.value is not None:
            fed[place] = readout.feed(token.value)
    return ids, fed


def replay(automaton: TokenAutomaton, state: int, tokens: Many[Token]) -> tuple[int, int]:
    """The automaton's state and the count of completed objects after `tokens`."""
    objects = 0
    for token in tokens:
        objects += bool(automaton.completes[state, automaton.token_class[token.id]])
        state = automaton.advance(state, token.id)
    return state, objects


def read_tokens(output: np.ndarray, readout: Readout | None) -> Iterator[tuple[Token, int]]:
    """The token and the finish code of every row of an output, int32 [B, Output + E]."""
    tokens, finishes = output[:, Output.TOKEN].tolist(), output[:, Output.FINISH].tolist()
    logprobs = np.ascontiguousarray(output[:, Output.LOGPROB]).view(np.float32).tolist()
    reads = [-1] * len(tokens) if readout is None else output[:, len(Output)].tolist()
    for row, (token, finish, logprob, read) in enumerate(zip(tokens, finishes, logprobs, reads, strict=True)):
        if readout is None or read < 0:
            yield Token(token, None, None, logprob), finish
        else:
            bins, value = readout.taken(token, output[row, len(Output) :].tolist())
            yield Token(token, bins, value, logprob), finish


def float_bits(value: float) -> int:
    return int(np.float32(value).view(np.int32))
