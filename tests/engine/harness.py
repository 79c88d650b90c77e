"""Everything around a pipeline on a fake device: requests with known answers, a synchronous loop, the books."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from functools import cache, partial
from itertools import count, pairwise

import numpy as np

from jaxphoton.constraints import automaton
from jaxphoton.constraints.grammar import Replay
from jaxphoton.engine.adapter_slots import Staged
from jaxphoton.engine.launch import Limits
from jaxphoton.engine.pages import TRASH_PAGE, PageAllocator
from jaxphoton.engine.pipeline import DeviceError, Launch, Pipeline
from jaxphoton.engine.request import Request, Sequence
from jaxphoton.engine.scheduler import Scheduler
from jaxphoton.image.crops import Crops
from jaxphoton.image.prepare import Prepared
from jaxphoton.models.adapters import NO_SLOT, Adapter
from jaxphoton.models.moondream import grammars as registry
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.models.moondream.reading import named_config
from jaxphoton.models.protocol import IMAGE, Prompt, Segments
from jaxphoton.requests.settings import Settings
from tests.engine.fake import DeviceFault, FakeDevice, Geometry, scripted_bins

TOKENIZER = named_config("moondream2").tokenizer
GRAMMARS = registry.grammars(TOKENIZER)
VOCABULARY = 64
TABLES = automaton.build(GRAMMARS, VOCABULARY)
STOP_CHANCE = 0.15
READOUT = MoondreamFamily(named_config("moondream2")).readout
BOS = 0


def image(name: int, crops: int = 2) -> Prepared:
    return Prepared(Crops(np.zeros((crops, 1, 1, 3), np.uint8), (1, crops - 1)), bytes([name]), (1, 1))


def request(
    grammar: str = "text",
    prompt: int = 5,
    picture: Prepared | None = None,
    max_tokens: int = 8,
    adapter: Adapter | None = None,
    further: Mapping[int, Prepared] | None = None,
    **settings,
) -> Request:
    """A request of `prompt` ids, with further pictures in front of some. Its answer follows from the seed alone
    (`answer`)."""
    settings = {"seed": 1, "max_objects": 50, **settings}
    ids, more = tuple(10 + i % 50 for i in range(prompt)), further or {}
    told, chosen = Prompt(ids, pictures=tuple(more)), Settings(max_tokens=max_tokens, **settings)
    return Request(told, grammar, chosen, picture, adapter=adapter, further=tuple(more.values()))


def segments(request: Request, prefix: int) -> Segments:
    """BOS and an image of `prefix` positions together, or BOS alone; then the prompt. A further image has one position
    less."""
    prompt, ids, blocks = request.prompt, [] if request.image else [BOS], list[tuple[int, int]]()
    for number, (start, stop) in enumerate(pairwise((0, *prompt.pictures, len(prompt.ids)))):
        if number:
            blocks.append((len(ids), len(ids) + prefix - 1))
            ids += [IMAGE] * (prefix - 1)
        ids += prompt.ids[start:stop]
    fed = np.zeros((len(ids), READOUT.fed), np.int32)
    for place, values in prompt.values:
        fed[(0 if request.image else 1) + place] = READOUT.feed(values)
    before = np.array([BOS] + (prefix - 1) * [IMAGE] if request.image else [], np.int32)
    return Segments(before, np.array(ids, np.int32), fed, tuple(blocks))


@cache
def _answer(grammar: str, seed: int, max_tokens: int, max_objects: int, stop: float) -> tuple[tuple[int, ...], str]:
    random, walk, ids = np.random.default_rng(seed), Replay(GRAMMARS[grammar], max_tokens, max_objects), []
    while walk.finish is None:
        rules = walk.rules
        stops, moves, others = [], [], []
        for i in filter(walk.allows, range(VOCABULARY)):
            (stops if i in rules.stop else moves if i in rules.moves else others).append(i)
        ends = stops and random.random() < stop
        pick = stops if ends else moves if moves and random.random() < 0.3 else others or moves
        ids.append(int(random.choice(pick)))
        walk.advance(ids[-1])
    return tuple(ids), walk.finish


def answer(request: Request, max_tokens: int, stop: float = STOP_CHANCE) -> tuple[tuple[int, ...], str]:
    """The ids that the fake model gives a request, and how they end: by the plain rules, not by the tables."""
    settings = request.settings
    return _answer(request.grammar, settings.seed or 0, max_tokens, settings.max_objects, stop)


class Lost(Exception):
    """A launch or its result is lost, because the test wants it."""


class Harness:
    """A pipeline on a fake device.

    `stop` is the chance that an answer stops where it may. `faults` numbers the launches and fetches that fail; the
    harness starts over then, as the engine does.

    Attributes:
      finished: sequences in the order in which `on_finish` named them.
      heard: ids by sequence, as `on_token` saw them.
      events: ("launch" | "commit_begin" | "commit_end", number).
    """

    def __init__(
        self,
        depth: int = 2,
        rows: int = 4,
        pages: int = 200,
        stop: float = STOP_CHANCE,
        geometry: Geometry = Geometry(),  # noqa: B008
        faults: Collection[int] = (),
        **limits,
    ):
        self.geometry, self.stop = geometry, stop
        self.limits = Limits(rows, **{"prefill_rows": 2, "vision": ((2, 6),), **limits})
        self.device = FakeDevice(geometry, TABLES, lambda request, most: self.answer(request, most)[0], READOUT)
        self.allocator = PageAllocator(pages)
        self.scheduler = Scheduler(self.limits, self.allocator)
        self.finished: list[Sequence] = []
        self.heard: dict[Sequence, list[int]] = {}
        self.events: list[tuple[str, int]] = []
        self.launches: list[Launch] = []
        self.pipeline = Pipeline(
            self.device, self.scheduler, READOUT, depth, self.finished.append, self._hear, self._event
        )
        self.answer = partial(answer, stop=stop)
        self.cancelled: set[Sequence] = set()
        if faults:
            self._faults, self._calls = faults, count()
            self.device.fail = self._fail

    def submit(self, request: Request) -> Sequence:
        sequence = self.sequence(request)
        self.scheduler.check(sequence)
        self.scheduler.add(sequence)
        return sequence

    def sequence(self, request: Request) -> Sequence:
        geometry = self.geometry
        sequence = Sequence(request, segments(request, geometry.prefix), geometry.page_size, geometry.context)
        sequence.staged = None if request.adapter is None else Staged(request.adapter)
        return sequence

    def cancel(self, sequence: Sequence) -> None:
        """Gives a sequence up as the engine does; nothing happens if it has ended."""
        if not sequence.finalized:
            self.cancelled.add(sequence)
            self.scheduler.finalize(sequence)

    def run(self) -> None:
        """Ticks until nothing is left to do."""
        for _ in self.until_idle():
            pass

    def until_idle(self, ticks: int = 5000) -> Iterator[None]:
        """The same, with a pause before each tick."""
        for _ in range(ticks):
            if self.pipeline.idle:
                return
            yield
            assert self._advance(), "the pipeline has work and does nothing"
            self.check_books()
        raise AssertionError(f"not done after {ticks} ticks")

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self._advance()
            self.check_books()

    def _advance(self) -> bool:
        try:
            return self.pipeline.tick()
        except DeviceError as error:
            if isinstance(error.__cause__, DeviceFault):  # the test's business, not the pipeline's
                raise error.__cause__ from None
            if not isinstance(error.__cause__, Lost):
                raise
            self.pipeline.start_over()
            return True

    def _fail(self, name: str, number: int) -> None:
        if next(self._calls) in self._faults:
            raise Lost(f"{name} {number}")

    def _hear(self, sequence: Sequence) -> None:
        self.heard.setdefault(sequence, []).append(sequence.tokens[-1].id)

    def _event(self, name: str, launch: Launch) -> None:
        self.events.append((name, launch.number))
        if name == "launch":
            self.launches.append(launch)

    # What must hold

    def check_books(self) -> None:
        """Every page and every row is in exactly one place."""
        check_books(self.scheduler)

    def check_clean(self) -> None:
        """Nothing is left behind but cached prefixes, and those can be evicted."""
        assert self.pipeline.idle and not self.pipeline.in_flight and not self.device.under_way
        check_clean(self.scheduler)

    def check_answer(self, sequence: Sequence) -> None:
        """The sequence got the tokens of its script, each once and in order."""
        ids, finish = self.answer(sequence.request, sequence.max_tokens)
        got = [token.id for token in sequence.tokens]
        assert self.heard.get(sequence, []) == got
        assert self.finished.count(sequence) == (sequence not in self.cancelled)
        if sequence in self.cancelled:
            assert got == list(ids[: len(got)]) and sequence.finish_reason is None
            return
        assert (got, sequence.finish_reason) == (list(ids), finish)
        for index, token in enumerate(sequence.tokens):
            assert token.logprob == -(index + 1)
            if token.bins is not None:
                bins = scripted_bins(sequence.request.number, index, token.id)
                assert token.bins == bins[: len(token.bins)]


def check_books(scheduler: Scheduler) -> None:
    limits, allocator = scheduler.limits, scheduler.allocator
    admitted = [*scheduler.running, *scheduler.zombies]
    own = [page for sequence in admitted for page in sequence.pages]
    shared = {s.prefix_key: s.prefix_pages for s in admitted if s.prefix_key is not None}
    held = own + [page for pages in shared.values() for page in pages]
    assert len(set(held)) == len(held) and TRASH_PAGE not in held, "a page has two owners"
    assert len(own) + scheduler.prefixes.pages + allocator.free == allocator.usable, "pages are lost"
    users = Counter(sequence.prefix_key for sequence in admitted if sequence.prefix_key is not None)
    assert all(scheduler.prefixes.users(key) == count for key, count in users.items())
    used = sum(len(pages) for pages in shared.values())
    assert scheduler.prefixes.pages - scheduler.prefixes.evictable == used
    rows = [sequence.row for sequence in admitted if sequence.row is not None]
    assert len(rows) == len(admitted) and len(set(rows)) == len(rows) <= limits.rows, "a row has two owners"
    assert sorted([*rows, *scheduler._rows]) == list(range(limits.rows)), "rows are lost"
    assert not any(sequence.row is not None or sequence.page_table for sequence in scheduler.waiting)
    check_slots(scheduler)


def check_slots(scheduler: Scheduler) -> None:
    """Every adapter of an admitted sequence has a slot of its own."""
    adapters, admitted = scheduler.adapters, [*scheduler.running, *scheduler.zombies]
    users = Counter(sequence.adapter for sequence in admitted if sequence.adapter is not None)
    assert all(adapters.users(digest) == count for digest, count in users.items()), "users of an adapter are miscounted"
    taken = {sequence.adapter: sequence.adapter_slot for sequence in admitted}
    assert all(sequence.adapter_slot == taken[sequence.adapter] for sequence in admitted)
    assert taken.pop(None, NO_SLOT) == NO_SLOT
    assert len(set(taken.values())) == len(taken) and set(taken.values()) <= set(range(adapters.slots))
    assert all(sequence.adapter_slot == NO_SLOT for sequence in scheduler.waiting)


def check_clean(scheduler: Scheduler) -> None:
    check_books(scheduler)
    assert not scheduler.has_work
    allocator, prefixes, adapters = scheduler.allocator, scheduler.prefixes, scheduler.adapters
    assert not any(adapters.users(digest) for digest in adapters.digests)
    assert prefixes.evictable == prefixes.pages and allocator.free + prefixes.pages == allocator.usable
    prefixes.evict(allocator.usable)
    assert allocator.free == allocator.usable and len(prefixes) == 0
