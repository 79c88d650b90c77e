"""Which rows run next, and who gets pages and adapters' slots: plain bookkeeping by priority and arrival."""

from __future__ import annotations

from bisect import insort
from operator import attrgetter

from jaxphoton.engine.adapter_slots import AdapterSlots
from jaxphoton.engine.launch import Drain, Limits, Plan, PrefillPlan, StepPlan
from jaxphoton.engine.pages import PageAllocator, PrefixCache, PrefixKey
from jaxphoton.engine.request import Sequence

_number, _turn = attrgetter("request.number"), attrgetter("turn")


class Scheduler:
    """Higher priority first, and first come, first served within one.

    A request that does not fit may be overtaken a bounded number of times. The same bound keeps low priorities from
    starving: whoever has waited longest counts every later request that is admitted before it, and goes first,
    whatever its priority, once there were `Limits.bypass` of them.
    """

    def __init__(self, limits: Limits, allocator: PageAllocator):
        self.limits, self.allocator = limits, allocator
        self.prefixes = PrefixCache(allocator)
        self.adapters = AdapterSlots(limits.adapter_slots)
        self.waiting: list[Sequence] = []  # by priority and number
        self.running: list[Sequence] = []  # admitted, in the order of admission
        self.zombies: set[Sequence] = set()  # finalized, but a launch under way still refers to them
        self._rows = list(range(limits.rows - 1, -1, -1))
        self.preemptions = 0

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running or self.zombies)

    @property
    def next_image(self) -> Sequence | None:
        """Who is at the head of the queue, if its image has still to be encoded."""
        head = self.waiting[0] if self.waiting else None
        return head if head and head.request.image is not None and self._key(head) not in self.prefixes else None

    def check(self, sequence: Sequence) -> None:
        """Refuses what could never run, even alone.

        Raises:
          ValueError: with the numbers.
        """
        if sequence.prompt_length == sequence.prefix_length:
            raise ValueError("the prompt is empty: behind an image at least one id is needed")
        if sequence.max_tokens < 1:
            raise ValueError(
                f"the prompt has {sequence.prompt_length} positions and leaves no room for an answer; the model's "
                f"context holds {sequence.max_context}"
            )
        # The last token is never fed.
        need = sequence.prefix_page_count + sequence.pages_for(sequence.prompt_length + sequence.max_tokens - 1)
        if need > self.allocator.usable:
            raise ValueError(f"the request needs {need} pages of the cache; there are {self.allocator.usable}")
        if sequence.adapter is not None and not self.limits.adapter_slots:
            raise ValueError("adapters need an engine with EngineConfig(adapter_slots=...) of at least 1")
        for picture in (sequence.request.image, *sequence.request.further):
            if picture is not None and not self.limits.fits_vision(1, len(picture.crops.pixels)):
                raise ValueError(f"the image has {len(picture.crops.pixels)} crops; no vision program takes so many")

    def add(self, sequence: Sequence) -> None:
        insort(self.waiting, sequence, key=_turn)

    def plan(self, in_flight: int) -> Plan | None:
        """The next launch; None if there is nothing to launch now. Prefill comes before decoding."""
        return self._plan_prefill() or self._plan_step(in_flight)

    # Admission

    def _plan_prefill(self) -> PrefillPlan | None:
        if not self._rows or not self.waiting:
            return None
        admitted, images, adapters, crops = list[Sequence](), list[Sequence](), list[Sequence](), 0
        for sequence in self._candidates():
            several = bool(sequence.segments.blocks)
            if not self._rows or len(admitted) == self.limits.prefill_rows or (several and admitted):
                break  # one with several image blocks is prefilled alone, block after block
            miss = sequence.request.image is not None and self._key(sequence) not in self.prefixes
            size = len(sequence.request.image.crops.pixels) if miss and sequence.request.image else 0
            fits = not miss or self.limits.fits_vision(len(images) + 1, crops + size)
            fresh = sequence.adapter is not None and sequence.adapter not in self.adapters
            if fits and self._admit(sequence):
                admitted.append(sequence)
                if miss:
                    images.append(sequence)
                    crops += size
                if fresh:
                    adapters.append(sequence)
                if self._overtake(sequence) or several:
                    break
            elif sequence.bypassed >= self.limits.bypass:
                break
        return PrefillPlan(tuple(admitted), tuple(images), tuple(adapters)) if admitted else None

    def _candidates(self) -> list[Sequence]:
        """Who may be admitted now, in turn: a starved oldest first, then the head of the queue.

        No further than may be overtaken: with the pool dry, a tick must not try a thousand waiting requests.
        """
        head = self.waiting[: self.limits.bypass + self.limits.prefill_rows]
        oldest = min(self.waiting, key=_number)
        if oldest.bypassed < self.limits.bypass:
            return head
        return [oldest, *(sequence for sequence in head if sequence is not oldest)]

    def _overtake(self, admitted: Sequence) -> bool:
        """Counts the overtaking of those before it and of the oldest; whether one must not be overtaken again."""
        turn, oldest = _turn(admitted), min([admitted, *self.waiting], key=_number)
        passed = [s for s in self.waiting if _turn(s) < turn or s is oldest]
        for other in passed:
            other.bypassed += 1
        return any(other.bypassed >= self.limits.bypass for other in passed)

    def _admit(self, sequence: Sequence) -> bool:
        """Gives a waiting sequence its row, its pages and the slot of its adapter, all or nothing."""
        if sequence.adapter is not None and not self.adapters.available(sequence.adapter):
            return False
        key = self._key(sequence)
        shared = self.prefixes.acquire(key) if key is not None else None
        own = sequence.pages_for(sequence.prefill_length)
        prefix = sequence.prefix_page_count if shared is None else 0
        # A page of headroom for every running sequence: admitting must not at once preempt another.
        if not self._make_room(own + prefix + len(self.running)):
            if shared is not None:
                self.prefixes.release(key)
            return False
        if key is not None:
            sequence.prefix_key = key
            sequence.prefix_pages = self.allocator.allocate(prefix) if shared is None else shared
            if shared is None:
                self.prefixes.insert(key, sequence.prefix_pages)
        if shared is not None and sequence.launched_at is None:
            sequence.cached_tokens = sequence.prefix_length
        sequence.pages = self.allocator.allocate(own)
        sequence.row = self._rows.pop()
        if sequence.adapter is not None:
            sequence.adapter_slot = self.adapters.acquire(sequence.adapter)
        self.waiting.remove(sequence)
        self.running.append(sequence)
        return True

    def _make_room(self, pages: int) -> bool:
        short = pages - self.allocator.free
        # Evicting must not strip the cache for a request that would not fit even then.
        if short > self.prefixes.evictable:
            return False
        return short <= 0 or self.prefixes.evict(short) >= short

    def _key(self, sequence: Sequence) -> PrefixKey | None:
        if sequence.prefix is None or self.limits.share_prefixes:
            return sequence.prefix
        return sequence.prefix, sequence.request.number

    def take_back(self, plan: PrefillPlan) -> None:
        """Undoes the admission of a plan of which nothing was launched: its sequences wait again."""
        for sequence in plan.sequences:
            self.running.remove(sequence)
            self._release(sequence)
            if sequence.launched_at is None:
                sequence.cached_tokens = 0
            self.add(sequence)
        for sequence in plan.images:
            # Nobody else has these: they were entered for this launch, which was to fill them.
            if (key := self._key(sequence)) in self.prefixes:
                self.prefixes.discard(key)
        for sequence in plan.adapters:
            if sequence.adapter is not None:
                self.adapters.discard(sequence.adapter)

    # Decoding

    def _plan_step(self, in_flight: int) -> Plan | None:
        ready = [sequence for sequence in self.running if sequence.wants_step]
        for sequence in ready:
            # A sequence without a row was preempted for an earlier one.
            while sequence.row is not None and not self._grow(sequence):
                if in_flight:
                    return Drain()
                self._preempt(self.running[-1])
        chosen = tuple(sequence for sequence in ready if sequence.row is not None)
        return StepPlan(chosen) if chosen else None

    def _grow(self, sequence: Sequence) -> bool:
        """Sees to the page of the position that the next step writes."""
        missing = sequence.pages_for(sequence.prompt_length + sequence.launched) - len(sequence.pages)
        if missing <= 0:
            return True
        if not self._make_room(missing):
            return False
        sequence.pages += self.allocator.allocate(missing)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        """Puts a sequence back among the waiting; it will be recomputed from its committed tokens."""
        assert sequence.inflight_refs == 0
        self.preemptions += 1
        sequence.set_back += 1
        self.running.remove(sequence)
        self._release(sequence)
        self.add(sequence)

    # Endings

    def finalize(self, sequence: Sequence) -> None:
        """The sequence's result is known; its row, slot and pages go once no launch refers to it."""
        sequence.finalized, sequence.staged = True, None
        if sequence in self.waiting:
            self.waiting.remove(sequence)
            return
        self.running.remove(sequence)
        self.zombies.add(sequence)
        self.settle(sequence)

    def settle(self, sequence: Sequence) -> None:
        """Releases a finalized sequence if its last reference has dropped."""
        if sequence in self.zombies and sequence.inflight_refs == 0:
            self.zombies.remove(sequence)
            self._release(sequence)

    def start_over(self) -> list[Sequence]:
        """Forgets rows, slots and pages, whose contents are lost; admitted sequences wait again, and are returned."""
        lost = self.running
        self.allocator = PageAllocator(self.allocator.pages)
        self.prefixes = PrefixCache(self.allocator)
        self.adapters = AdapterSlots(self.limits.adapter_slots)
        self.running, self.zombies = [], set()
        self._rows = list(range(self.limits.rows - 1, -1, -1))
        for sequence in lost:
            sequence.inflight_refs = 0
            sequence.set_back += 1
            sequence.leave()
            self.add(sequence)
        return lost

    def _release(self, sequence: Sequence) -> None:
        assert sequence.row is not None
        self._rows.append(sequence.row)
        if sequence.adapter is not None:
            self.adapters.release(sequence.adapter)
        self.allocator.release(sequence.pages)
        if sequence.prefix_key is not None:
            self.prefixes.release(sequence.prefix_key)
            if not self.limits.share_prefixes:
                self.prefixes.discard(sequence.prefix_key)
        sequence.leave()
