"""What the engine is asked to do, and where it stands."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import count

from jaxphoton.constraints.grammar import FinishReason
from jaxphoton.constraints.protocol import MakeConstraint
from jaxphoton.engine.adapter_slots import Staged
from jaxphoton.engine.metrics import RequestMetrics
from jaxphoton.engine.pages import PrefixKey
from jaxphoton.image.prepare import Prepared
from jaxphoton.models.adapters import NO_SLOT, Adapter
from jaxphoton.models.protocol import Family, Prompt, Segments
from jaxphoton.requests.settings import Settings
from jaxphoton.requests.tokens import Generation, Token

_numbers = count()


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One sequence to generate.

    Attributes:
      prompt: as the skill wrote it.
      grammar: name in the family's grammars.
      settings: the seed is set.
      image: pictures of one digest share their prefix; None for text only.
      further: pictures behind it, one for each of `Prompt.pictures`; these are nobody else's.
      constraint: makes the host's restriction of the ids, or None.
      deadline: when it is given up, in seconds of the engine's clock (`time.monotonic()`); None for never.
      priority: a higher one is admitted first; nobody who runs is preempted for it.
      adapter: what answers beside the model, or None.
      number: order of submission.
    """

    prompt: Prompt
    grammar: str
    settings: Settings
    image: Prepared | None = None
    constraint: MakeConstraint | None = None
    deadline: float | None = None
    priority: int = 0
    adapter: Adapter | None = None
    number: int = field(default_factory=lambda: next(_numbers))
    further: tuple[Prepared, ...] = ()


class Sequence:
    """Host bookkeeping of one request.

    Attributes:
      turn: sorts by priority, then by age.
      segments: its prompt, as the family made it with the image.
      prefix: what its prefix is told by, its ids, pixels and adapter; None without an image.
      max_context: positions that it may have in all.
      tokens: committed.
      inflight_refs: launches that will each bring one more token for it (0, 1 or 2).
      finalized: its result is known (or it was given up); launches still under way change nothing any more.
      row: of the row state, while admitted.
      adapter: the digest of its adapter, None for none.
      adapter_slot: where that lies on the device, while admitted.
      staged: what is put there if it is not; None once it is finalized.
      prefix_pages: pages of the image prefix, shared or its own.
      pages: its own pages behind the prefix.
      bypassed: how often a later request was admitted before this one.
      retries: how often it was recomputed after a device error.
      constraint: the host's restriction of its ids, in the state after `tokens`; None if there is none.
      cached_tokens: positions of the prompt found in the prefix cache at its first admission.
      set_back: how often it was preempted: lost its pages and was recomputed.
      submitted_at, launched_at, first_token_at: seconds of the engine's clock, once they are known.
    """

    def __init__(self, request: Request, segments: Segments, page_size: int, max_context: int):
        self.request, self.segments = request, segments
        self.turn = (-request.priority, request.number)
        self.prefix_length = len(segments.prefix)
        self.prefix_page_count = -(-self.prefix_length // page_size)
        self.adapter = None if request.adapter is None else request.adapter.digest
        image = request.image
        self.prefix = None if image is None else (segments.prefix.tobytes(), image.digest, self.adapter)
        self.prompt_length = self.prefix_length + len(segments.ids)
        self.max_context = max_context
        self.max_tokens = min(request.settings.max_tokens, max_context - self.prompt_length)
        self.tokens: list[Token] = []
        self.inflight_refs = 0
        self.finalized = False
        self.finish_reason: FinishReason | None = None
        self.error: BaseException | None = None
        self.row: int | None = None
        self.adapter_slot = NO_SLOT
        self.staged: Staged | None = None
        self.prefix_key: PrefixKey | None = None
        self.prefix_pages: list[int] = []
        self.pages: list[int] = []
        self.bypassed = 0
        self.retries = 0
        self.constraint = None if request.constraint is None else request.constraint()
        self.cached_tokens = 0
        self.set_back = 0
        self.submitted_at: float | None = None
        self.launched_at: float | None = None
        self.first_token_at: float | None = None
        self._page_size = page_size

    @property
    def launched(self) -> int:
        """Tokens sampled on the device, committed or not."""
        return len(self.tokens) + self.inflight_refs

    @property
    def wants_step(self) -> bool:
        """Whether a decode step may be launched for it: launches never exceed the limit on tokens."""
        return not self.finalized and self.inflight_refs < 2 and 0 < self.launched < self.max_tokens

    @property
    def prefill_length(self) -> int:
        """Positions that a prefill (or a recompute) covers: the prompt and all committed tokens."""
        return self.prompt_length + len(self.tokens)

    @property
    def page_table(self) -> list[int]:
        return self.prefix_pages + self.pages

    def pages_for(self, length: int) -> int:
        """Own pages that `length` logical positions need behind the prefix, which ends on a page border."""
        return -(-(length - self.prefix_length) // self._page_size)

    def metrics(self, now: float) -> RequestMetrics:
        """What it has taken so far; stages that it has not reached yet are 0."""
        submitted = now if self.submitted_at is None else self.submitted_at
        launched = now if self.launched_at is None else self.launched_at
        first = now if self.first_token_at is None else self.first_token_at
        image, further = self.request.image, self.request.further
        return RequestMetrics(
            submitted=submitted,
            prepare=sum(picture.seconds for picture in (image, *further) if picture is not None),
            queue=launched - submitted,
            prefill=first - launched,
            decode=now - first,
            total=now - submitted,
            input_tokens=self.prompt_length,
            cached_tokens=self.cached_tokens,
            output_tokens=len(self.tokens),
            set_back=self.set_back,
        )

    def leave(self) -> None:
        """Forgets row, slot and pages, which belong to somebody else from now on."""
        self.row, self.adapter_slot, self.prefix_key = None, NO_SLOT, None
        self.prefix_pages, self.pages = [], []

    def generation(self) -> Generation:
        assert self.finish_reason is not None
        return Generation(tuple(self.tokens), self.finish_reason)


def sequence_of(request: Request, family: Family, page_size: int) -> Sequence:
    """A request as the engine keeps it.

    Raises:
      ValueError: its prompt cannot stand with its pictures, or its deadline is no number. What making its constraint
        raises is raised as it is.
      TypeError: its priority is not an int.
    """
    if request.deadline is not None and math.isnan(request.deadline):
        raise ValueError("the deadline is not a number")
    if not isinstance(request.priority, int):
        raise TypeError(f"the priority must be an int, not {type(request.priority).__name__}")
    image, further = request.image, tuple(picture.crops for picture in request.further)
    segments = family.segments(request.prompt, None if image is None else image.crops, further)
    length, most = len(segments.prefix), family.prefix_lengths[-1]
    if length > most:
        raise ValueError(f"the prompt has {length} positions up to the end of its image; at most {most} are taken")
    if any(stop - start > most for start, stop in segments.blocks):
        raise ValueError(f"the prompt has a picture of more than {most} positions")
    return Sequence(request, segments, page_size, family.max_context)
