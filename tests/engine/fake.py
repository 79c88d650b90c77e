"""A device for the pipeline whose launches complete when a test says so.

It takes the same control arrays as the real one and keeps what the real one would hold: for every cell of the pool
who wrote which position there, for every row whose turn it is. Whatever a launch is told to read must have been
written before, in the order of launches; whatever it is told to write must not belong to a launch under way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxphoton.constraints.automaton import DONE, TokenAutomaton, unpack_bits
from jaxphoton.engine import control as layout
from jaxphoton.engine.buckets import table_width
from jaxphoton.engine.control import ControlPacker, Masks, Output, Prefill, Row
from jaxphoton.engine.launch import PrefillPlan, StepPlan, parts_of
from jaxphoton.engine.pages import TRASH_PAGE
from jaxphoton.engine.request import Request, Sequence
from jaxphoton.models.adapters import NO_SLOT
from jaxphoton.models.protocol import Readout

READ = 2  # columns of the readout


class DeviceFault(AssertionError):
    """The host told the device something that does not fit what it told it before."""


@dataclass(eq=False)
class FakeOutput:
    """A launch on the device.

    Attributes:
      number: in the order of launches.
      kind: "prefill" or "step".
      requests: numbers of the requests, one a line.
      lines: what comes back.
      pages: every page the launch may touch, and whose it is.
      rows: every row it touches, and whose it is.
      sampled: whether its tokens are chosen; a step in two is sampled later.
    """

    number: int
    kind: str
    requests: tuple[int, ...]
    lines: np.ndarray
    pages: dict[int, Any] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)
    sampled: bool = True


@dataclass
class RowTruth:
    """The row state of one row: what the next step would read."""

    request: int
    index: int
    state: int
    objects: int


@dataclass(frozen=True)
class Geometry:
    """Sizes of the fake model. `prefix` is the length of an image prefix, `context` the most positions."""

    rows: int = 4
    page_size: int = 4
    prefix: int = 6
    context: int = 64
    chunk: int = 8


class FakeDevice:
    """Attributes:
    log: ("launch", number, kind, requests), ("complete", number) and ("fetch", number, blocked, behind) in order;
      `blocked` says that the host had to wait, `behind` how many launches were enqueued after that one.
    ahead: numbers of the requests whose images were to be encoded ahead, None for nobody's.
    fail: called before each launch and fetch with its name and number; may raise.
    """

    def __init__(
        self,
        geometry: Geometry,
        automaton: TokenAutomaton,
        script: Callable[[Request, int], tuple[int, ...]],
        readout: Readout | None,
    ):
        self._geometry, self._automaton, self._script = geometry, automaton, script
        width = table_width(geometry.context, geometry.page_size)
        self._shape = ControlPacker(geometry.rows, width, 0, readout, adapters=True)
        self._cells: dict[tuple[int, int], Any] = {}
        self._rows: dict[int, RowTruth] = {}
        self._adapters: dict[int, bytes] = {}  # by slot
        self._outputs: list[FakeOutput] = []
        self._completed = self._fetched = 0
        self.log: list[tuple] = []
        self.ahead: list[int | None] = []
        self.fail: Callable[[str, int], None] = lambda name, number: None

    @property
    def under_way(self) -> list[FakeOutput]:
        """Launches that nobody has fetched."""
        return self._outputs[self._fetched :]

    def complete(self, count: int = 1) -> None:
        """The next launches end."""
        for _ in range(min(count, len(self._outputs) - self._completed)):
            self.log.append(("complete", self._completed))
            self._completed += 1

    # jaxphoton.engine.pipeline.LaunchDevice

    def encode_ahead(self, sequence: Sequence | None) -> None:
        """Whoever is said to be next must be waiting, for an image that nobody has encoded."""
        if sequence is not None and (sequence.request.image is None or sequence.row is not None or sequence.finalized):
            raise DeviceFault(f"request {sequence.request.number} has no image to be encoded ahead")
        self.ahead.append(None if sequence is None else sequence.request.number)

    def prefill(self, plan: PrefillPlan) -> tuple[np.ndarray, FakeOutput]:
        output = self._new("prefill", plan.sequences)
        for sequence in plan.adapters:
            if sequence.adapter in self._adapters.values():
                raise DeviceFault(f"the adapter of request {sequence.request.number} lies in a slot already")
            assert sequence.adapter is not None and sequence.staged is not None
            self._adapters[sequence.adapter_slot] = sequence.adapter
        for sequence, line in zip(plan.images, self._shape.prefix(plan.images, len(plan.images)), strict=True):
            self._check_slot(sequence, line)
            self._write_prefix(output, sequence, line[:-1])
        count = len(plan.sequences)
        if count > 1 and any(sequence.segments.blocks for sequence in plan.sequences):
            raise DeviceFault("a sequence with further images must be prefilled alone")
        for part in parts_of(plan):
            if isinstance(part, int):
                (sequence,) = plan.sequences
                self._write_block(output, sequence, part)
            else:
                control = self._prefill_run(output, plan, part)
        return control, self._enqueue(output)

    def _prefill_run(self, output: FakeOutput, plan: PrefillPlan, run: slice) -> np.ndarray:
        chunk = self._geometry.chunk
        most = max(len(range(*run.indices(s.prefill_length - s.prefix_length))) for s in plan.sequences)
        chunks = -(-most // chunk)
        if chunks == 0:
            raise DeviceFault("a prefill without ids")
        for i in range(chunks):
            batch = len(plan.sequences) + 1  # a line of padding
            control = self._shape.prefill(plan.sequences, i, chunks, batch, chunk, self._automaton, run=run)
            last = run.stop is None and i == chunks - 1
            self._prefill_chunk(output, plan.sequences, control, plan.masks, last)
        return control

    def step(self, plan: StepPlan) -> tuple[np.ndarray, FakeOutput]:
        output = self._new("step", plan.sequences)
        control = self._shape.step(plan.sequences, len(plan.sequences) + 1)
        for i, sequence in enumerate(plan.sequences):
            output.lines[i] = self._step_line(output, sequence, control[i])
        self._check_padding(control[len(plan.sequences) :])
        return control, self._enqueue(output)

    def forward(self, plan: StepPlan) -> tuple[np.ndarray, tuple]:
        output = self._new("step", plan.sequences)
        control = self._shape.step(plan.sequences, len(plan.sequences) + 1)
        output.sampled = False
        for i, sequence in enumerate(plan.sequences):
            self._table(output, sequence, control[i])
        return control, (self._enqueue(output), control)

    def sample(self, plan: StepPlan, pending: tuple, masks: Masks) -> FakeOutput:
        output, control = pending
        self.fail("sample", output.number)
        if output.number != self._fetched:
            raise DeviceFault(f"step {output.number} is sampled before launch {self._fetched} was committed")
        self.log.append(("sample", output.number))
        for i, sequence in enumerate(plan.sequences):
            output.lines[i] = self._step_line(output, sequence, control[i])
            self._check_mask(sequence, masks, output.lines[i])
        self._check_padding(control[len(plan.sequences) :])
        output.sampled = True
        return output

    def fetch(self, output: FakeOutput) -> np.ndarray:
        self.fail("fetch", output.number)
        if not output.sampled:
            raise DeviceFault(f"launch {output.number} is fetched before it was sampled")
        if output.number != self._fetched:
            raise DeviceFault(f"launch {output.number} is fetched, launch {self._fetched} is due")
        blocked = output.number >= self._completed
        self.log.append(("fetch", output.number, blocked, len(self._outputs) - output.number - 1))
        self.complete(output.number + 1 - self._completed)
        self._fetched += 1
        return output.lines.copy()

    def reset(self) -> None:
        """All that was launched and stored is lost."""
        self._cells.clear(), self._rows.clear(), self._adapters.clear()
        self._completed = self._fetched = len(self._outputs)
        self.log.append(("reset",))

    # What the programs do

    def _new(self, kind: str, sequences: tuple[Sequence, ...]) -> FakeOutput:
        number = len(self._outputs)
        self.fail(kind, number)
        if len({s.row for s in sequences}) != len(sequences) or not sequences:
            raise DeviceFault("every line of a launch needs a row of its own")
        lines = np.full((len(sequences) + 1, len(Output) + READ), layout.ZOMBIE, np.int32)
        return FakeOutput(number, kind, tuple(s.request.number for s in sequences), lines)

    def _enqueue(self, output: FakeOutput) -> FakeOutput:
        for other in self.under_way:
            for what in ("pages", "rows"):
                mine, theirs = getattr(output, what), getattr(other, what)
                taken = [at for at, owner in mine.items() if theirs.get(at, owner) != owner]
                if taken:
                    raise DeviceFault(f"{what} {taken} change hands while launch {other.number} refers to them")
        self._outputs.append(output)
        self.log.append(("launch", output.number, output.kind, output.requests))
        return output

    def _write_prefix(self, output: FakeOutput, sequence: Sequence, line: np.ndarray) -> None:
        tenant = self._image(sequence)
        pages = line[: self._shape.table]
        if line[self._shape.table :].tolist() != [0, self._geometry.prefix, self._geometry.prefix]:
            raise DeviceFault(f"a prefix that is said to be at {line[self._shape.table :]}")
        for page in pages[pages != TRASH_PAGE].tolist():
            self._claim(output, page, tenant)
            for offset in range(self._geometry.page_size):
                self._cells.pop((page, offset), None)
        for place in range(self._geometry.prefix):
            self._put(pages, place, (tenant, place))

    def _write_block(self, output: FakeOutput, sequence: Sequence, number: int) -> None:
        """All before it must be there, as all of it sees that; its cells are the request's own."""
        line, width = self._shape.block(sequence, number, 2)[0], self._shape.table
        self._check_slot(sequence, line)
        start, count, prefix = line[width:-1].tolist()
        begin, end = (sequence.prefix_length + place for place in sequence.segments.blocks[number])
        if (start, start + count, prefix) != (begin, end, sequence.prefix_length):
            raise DeviceFault(f"block {number} of request {sequence.request.number} is said to be at {start}")
        table = self._claimed(output, sequence, line[:width])
        self._check_read(sequence, table, start)
        for position in range(start, start + count):
            self._put(table, self._place(sequence, position), (sequence.request.number, position))

    def _prefill_chunk(
        self, output: FakeOutput, sequences: tuple[Sequence, ...], control: np.ndarray, masks: Masks, last: bool
    ):
        width = self._shape.table
        self._check_padding(control[len(sequences) :])
        for i, sequence in enumerate(sequences):
            line = control[i]
            extra = line[len(Row) + width :]
            count = int(extra[Prefill.COUNT])
            if not count:
                self._check_padding(line[None])
                continue
            start = int(line[Row.POSITION])
            table = self._table(output, sequence, line)
            self._check_read(sequence, table, start)
            fed = extra[len(Prefill) : len(Prefill) + count].tolist()
            if fed != self._expected_ids(sequence)[start - sequence.prefix_length :][:count]:
                raise DeviceFault(f"request {sequence.request.number} is fed {fed} at position {start}")
            for position in range(start, start + count):
                self._put(table, self._place(sequence, position), (sequence.request.number, position))
            if bool(extra[Prefill.SAMPLE]) != last:
                raise DeviceFault("a token is sampled in the last chunk and in no other")
            if last:
                state, objects = int(extra[Prefill.STATE]), int(extra[Prefill.OBJECTS])
                truth = RowTruth(sequence.request.number, int(line[Row.INDEX]), state, objects)
                self._rows[int(line[Row.ROW])] = truth
                if start + count != sequence.prompt_length + truth.index:
                    raise DeviceFault(f"request {sequence.request.number} is sampled behind position {start + count}")
                output.lines[i] = self._sample(sequence, line, truth)
                self._check_mask(sequence, masks, output.lines[i])

    def _check_mask(self, sequence: Sequence, masks: Masks, line: np.ndarray) -> None:
        """The token must be one that the host allowed after all that came before it."""
        if sequence.constraint is None or sequence.finalized or line[Output.FINISH] == layout.ZOMBIE:
            return
        token = int(line[Output.TOKEN])
        if sequence not in masks or not unpack_bits(masks[sequence], len(self._automaton.token_class))[token]:
            raise DeviceFault(f"token {token} of request {sequence.request.number} is not what its mask allows")

    def _step_line(self, output: FakeOutput, sequence: Sequence, line: np.ndarray) -> np.ndarray:
        table = self._table(output, sequence, line)
        truth = self._rows.get(int(line[Row.ROW]))
        if truth is None or truth.request != sequence.request.number:
            raise DeviceFault(f"row {line[Row.ROW]} steps for request {sequence.request.number}, holds {truth}")
        if truth.state == DONE:
            return np.full(len(Output) + READ, layout.ZOMBIE, np.int32)
        position = int(line[Row.POSITION])
        if (int(line[Row.INDEX]), position) != (truth.index, sequence.prompt_length + truth.index - 1):
            raise DeviceFault(f"index {line[Row.INDEX]}, position {position} for {truth}")
        self._check_read(sequence, table, position)
        self._put(table, self._place(sequence, position), (sequence.request.number, position))
        return self._sample(sequence, line, truth)

    def _sample(self, sequence: Sequence, line: np.ndarray, truth: RowTruth) -> np.ndarray:
        """The next scripted token; advances the row as the tables say."""
        script, tables = self._script(sequence.request, sequence.max_tokens), self._automaton
        if truth.index >= len(script):
            raise DeviceFault(f"request {truth.request} has ended after {len(script)} tokens")
        token = script[truth.index]
        if not tables.mask(truth.state)[token]:
            raise DeviceFault(f"token {token} of request {truth.request} is not allowed in state {truth.state}")
        kind = tables.token_class[token]
        completes = bool(tables.completes[truth.state, kind])
        truth.objects += completes
        reads, truth.state = bool(tables.reads[truth.state]), int(tables.next_state[truth.state, kind])
        truth.index += 1
        full = truth.index >= line[Row.MAX_TOKENS] or (completes and truth.objects >= line[Row.MAX_OBJECTS])
        finish = layout.STOP if truth.state == DONE else layout.LENGTH if full else layout.RUNNING
        if finish != layout.RUNNING:
            truth.state = DONE
        bins = scripted_bins(truth.request, truth.index - 1, token if reads else 0)
        return np.array([token, finish, layout.float_bits(-truth.index), *bins], np.int32)

    # What is where

    def _table(self, output: FakeOutput, sequence: Sequence, line: np.ndarray) -> np.ndarray:
        self._check_slot(sequence, line)
        output.rows[int(line[Row.ROW])] = sequence.request.number
        return self._claimed(output, sequence, line[len(Row) : len(Row) + self._shape.table])

    def _claimed(self, output: FakeOutput, sequence: Sequence, table: np.ndarray) -> np.ndarray:
        shared = sequence.prefix_page_count
        for i, page in enumerate(p for p in table.tolist() if p != TRASH_PAGE):
            self._claim(output, page, self._image(sequence) if i < shared else sequence.request.number)
        return table

    def _claim(self, output: FakeOutput, page: int, tenant: Any) -> None:
        if output.pages.setdefault(page, tenant) != tenant:
            raise DeviceFault(f"page {page} has two owners in one launch: {tenant} and {output.pages[page]}")

    def _image(self, sequence: Sequence) -> tuple:
        assert sequence.request.image is not None
        return ("image", sequence.request.image.digest, sequence.adapter)

    def _check_slot(self, sequence: Sequence, line: np.ndarray) -> None:
        found = None if line[-1] == NO_SLOT else self._adapters.get(int(line[-1]), b"nothing")
        if found != sequence.adapter:
            raise DeviceFault(f"request {sequence.request.number} has {found} for the adapter {sequence.adapter}")

    def _place(self, sequence: Sequence, position: int) -> int:
        gap = -sequence.prefix_length % self._geometry.page_size
        return position if position < sequence.prefix_length else position + gap

    def _put(self, table: np.ndarray, place: int, content: Any) -> None:
        page = int(table[place // self._geometry.page_size])
        if page == TRASH_PAGE:
            raise DeviceFault(f"{content} would be written to the page that belongs to nobody")
        self._cells[page, place % self._geometry.page_size] = content

    def _check_read(self, sequence: Sequence, table: np.ndarray, length: int) -> None:
        size = self._geometry.page_size
        for position in range(length):
            place = self._place(sequence, position)
            tenant = self._image(sequence) if position < sequence.prefix_length else sequence.request.number
            found = self._cells.get((int(table[place // size]), place % size))
            if found != (tenant, position):
                raise DeviceFault(f"position {position} of request {sequence.request.number} reads {found}")

    def _check_padding(self, lines: np.ndarray) -> None:
        tables = lines[:, len(Row) : len(Row) + self._shape.table]
        if np.any(lines[:, Row.ROW] != self._geometry.rows) or np.any(tables != TRASH_PAGE):
            raise DeviceFault("padding must name the row and the page that belong to nobody")
        if np.any(lines[:, -1] != NO_SLOT):
            raise DeviceFault("padding must have no adapter")

    def _expected_ids(self, sequence: Sequence) -> list[int]:
        script = self._script(sequence.request, sequence.max_tokens)
        return [*sequence.segments.ids.tolist(), *script]


def scripted_bins(request: int, index: int, token: int) -> tuple[int, int]:
    """What the region heads of the fake model choose for a token; (-1, -1) where they are not read."""
    first, second = (31 * request + 7 * index) % 1024, (17 * request + 5 * index) % 1024
    return {5: (first, -1), 6: (first, second)}.get(token, (-1, -1))
