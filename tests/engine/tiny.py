"""A tiny model with random parameters, requests to it, and a loop without threads to run them in."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import jax
import numpy as np

from jaxphoton.config import EngineConfig
from jaxphoton.constraints import automaton
from jaxphoton.engine.adapter_slots import StagedAdapters
from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.device import Device
from jaxphoton.engine.launch import Limits, limits_of
from jaxphoton.engine.pages import PageAllocator
from jaxphoton.engine.pipeline import Launch, Pipeline
from jaxphoton.engine.request import Request, Sequence
from jaxphoton.engine.request import sequence_of as sequence_in
from jaxphoton.engine.scheduler import Scheduler
from jaxphoton.image.prepare import Prepared
from jaxphoton.models.moondream import grammars as registry
from jaxphoton.models.moondream.config import ModelConfig, RegionConfig, TextConfig, VisionConfig
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.models.moondream.params import Params, abstract
from jaxphoton.models.moondream.pictures import cut_crops
from jaxphoton.models.moondream.prompts import Prompt
from jaxphoton.models.moondream.reading import named_config
from jaxphoton.requests.settings import Settings
from tests.engine.harness import check_books, check_clean

# An image prefix is 10 positions; with pages of 4, that is 3 pages with a padding gap of 2.
CONFIG = ModelConfig(
    vision=VisionConfig(
        enc_dim=16,
        enc_patch_size=4,
        enc_n_layers=2,
        enc_ff_dim=24,
        enc_n_heads=2,
        proj_out_dim=32,
        proj_inner_dim=24,
        crop_size=12,
        max_crops=3,
        overlap_margin=1,
    ),
    text=TextConfig(
        dim=32, ff_dim=48, n_layers=2, vocab_size=80, max_context=96, n_heads=4, n_kv_heads=2, prefix_attn=10
    ),
    region=RegionConfig(dim=32, coord_feat_dim=16, coord_out_dim=64, size_feat_dim=16, size_out_dim=128, inner_dim=24),
    tokenizer=named_config("moondream2").tokenizer,
)
ENGINE = EngineConfig(
    max_rows=8,
    page_size=4,
    step_rows=(1, 8),
    prefill_rows=(3,),
    prefill_lengths=(6, 16),
    vision=((1, 4), (3, 9)),
    host_masks=True,
)
FIXED = dataclasses.replace(ENGINE, max_rows=4, step_rows=(4,), fixed_shapes=True, host_masks=False)
GRAMMARS = registry.grammars(CONFIG.tokenizer)
TABLES = automaton.build(GRAMMARS, CONFIG.text.vocab_size)
FAMILY = MoondreamFamily(CONFIG)


@cache
def parameters() -> Params:
    return drawn(CONFIG)


def drawn(config: ModelConfig) -> Params:
    """Parameters from a normal distribution: answers differ, and depend on everything that came before."""
    leaves, tree = jax.tree.flatten(abstract(config, "float32"))
    random = np.random.default_rng(0)
    return jax.tree.unflatten(tree, [jax.numpy.asarray(random.normal(0, 0.3, s.shape), s.dtype) for s in leaves])


@cache
def pictures() -> tuple[Prepared, ...]:
    """Three pictures of 1, 3 and 4 crops."""
    random = np.random.default_rng(1)
    sizes = ((9, 11), (14, 26), (60, 14))
    drawn = [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    return tuple(
        Prepared(cut_crops(picture, CONFIG.vision), bytes([i]), picture.shape[:2]) for i, picture in enumerate(drawn)
    )


def request(
    grammar: str = "text", prompt: int | Prompt = 5, picture: int | None = None, max_tokens: int = 8, **settings
) -> Request:
    """A request about picture number `picture`, with `prompt` ids."""
    if isinstance(prompt, int):
        prompt = Prompt(tuple(10 + 7 * i % 60 for i in range(prompt)))
    settings = {"seed": 1, "temperature": 0.7, **settings}
    image = None if picture is None else pictures()[picture]
    return Request(prompt, grammar, Settings(max_tokens=max_tokens, **settings), image)


def with_engine(programs: Programs, **changes) -> Programs:
    """The same compiled programs under another configuration (of depth, rows, waiting)."""
    other = copy.copy(programs)
    other.engine = dataclasses.replace(programs.engine, **changes)
    return other


def one_image(programs: Programs) -> Programs:
    """The same compiled programs for launches of one image, which on a CPU is encoded ahead."""
    other = copy.copy(programs)
    other.buckets = dataclasses.replace(programs.buckets, vision=programs.buckets.vision[:1])
    assert other.encodes_ahead
    return other


class Poisoned(Programs):
    """The same programs, whose pages begin as NaN, and slots as large numbers: what a last tenant may have left."""

    def __init__(self, programs: Programs):
        self.__dict__.update(programs.__dict__)

    def fresh_state(self):
        cache, rows = super().fresh_state()
        return jax.tree.map(lambda pool: jax.numpy.full_like(pool, np.nan), cache), rows

    def fresh_pool(self):
        return [jax.numpy.full_like(leaf, 7) for leaf in super().fresh_pool()]  # finite, as all adapters are


@dataclass(frozen=True)
class Schedule:
    """What happens when, in ticks of the loop.

    Attributes:
      arrivals: (tick, request).
      cancels: index of a request -> tick.
      depth, rows, pages, prefill_rows, share: limits of this run, at most those of the programs.
    """

    arrivals: tuple[tuple[int, Request], ...]
    cancels: Mapping[int, int] = dataclasses.field(default_factory=dict)
    depth: int = 2
    rows: int = 8
    pages: int | None = None
    prefill_rows: int = 3
    share: bool = True


class Loop:
    """Runs schedules on one device, which keeps what earlier schedules have left in its pages."""

    def __init__(self, programs: Programs, device: Device | None = None):
        self.programs = programs
        self.device = device or Device(programs)
        self._staged = StagedAdapters(programs.adapter_arrays, programs.on_device, kept=1, most=2)

    def run(
        self, schedule: Schedule, on_event: Callable[[str, Launch], None] | None = None
    ) -> tuple[list[Sequence], Scheduler]:
        """Runs a schedule to its end; checks the books on the way and that nothing is left behind."""
        programs = self.programs
        limits: Limits = dataclasses.replace(
            limits_of(programs.engine, programs.buckets),
            rows=schedule.rows,
            prefill_rows=min(schedule.prefill_rows, limits_of(programs.engine, programs.buckets).prefill_rows),
            share_prefixes=schedule.share and not programs.engine.fixed_shapes,
        )
        scheduler = Scheduler(limits, PageAllocator(schedule.pages or programs.pages))
        pipeline = Pipeline(
            self.device,
            scheduler,
            self.programs.family.readout,
            schedule.depth,
            lambda sequence: None,
            on_event=on_event,
        )
        family, page_size = programs.family, programs.engine.page_size
        sequences = [sequence_in(request, family, page_size) for _, request in schedule.arrivals]
        for sequence in sequences:
            scheduler.check(sequence)
            if sequence.request.adapter is not None:
                sequence.staged = self._staged.get(sequence.request.adapter)
        last = max([tick for tick, _ in schedule.arrivals] + list(schedule.cancels.values()), default=0)
        for tick in range(10_000):
            for (arrival, _), sequence in zip(schedule.arrivals, sequences, strict=True):
                if arrival == tick:
                    scheduler.add(sequence)
            for index, when in schedule.cancels.items():
                if when == tick and not sequences[index].finalized:
                    scheduler.finalize(sequences[index])
            if tick > last and pipeline.idle:
                break
            worked = pipeline.tick()
            assert worked or pipeline.idle, "the pipeline has work and does nothing"
            check_books(scheduler)
        assert pipeline.idle and not pipeline.in_flight
        check_clean(scheduler)
        return sequences, scheduler


def sequence_of(request: Request) -> Sequence:
    return sequence_in(request, FAMILY, ENGINE.page_size)


def at_once(*requests: Request) -> tuple[tuple[int, Request], ...]:
    return tuple((0, request) for request in requests)
