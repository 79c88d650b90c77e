"""One pass over a journal: counts of everything, and the images to show."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from jaxphoton.batch.journal.keymap import digest
from jaxphoton.batch.journal.reading import JournalReader
from jaxphoton.batch.journal.record import Header, Record
from jaxphoton.batch.quality import WARNINGS, Flag, asked_again, flags, texts
from jaxphoton.batch.report.counting import Frequent, Lengths, Smallest, kind, opening
from jaxphoton.requests.skills import asked_in, kinds

_NOTED = 200  # images with notes that are shown in any case
_EXTREMES = 50  # so many of the longest and of the shortest texts, or a tenth of all


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What the page shows.

    Attributes:
      images: of more than these, a sample is shown; which, depends on the keys alone.
      odd: besides the sample, so many failed and so many flagged images are shown.
      thumbnail: longest side in pixels; smaller pictures are not enlarged.
      quality: of the thumbnails, WebP's 1 to 100.
    """

    images: int = 2_000
    odd: int = 1_000
    thumbnail: int = 256
    quality: int = 70

    def __post_init__(self):
        if self.images < 0 or self.odd < 0 or self.thumbnail < 1 or not 1 <= self.quality <= 100:
            raise ValueError(
                f"images and odd must not be negative, thumbnail be at least 1 and quality 1 to 100, not {self}"
            )


class Picked(NamedTuple):
    """An image to show, its place in the journal, and what is odd about its texts."""

    number: int
    record: Record
    flags: tuple[Flag, ...]


@dataclass(slots=True)
class Counts:
    """What all images of a journal come to.

    Attributes:
      images, failed, tokens: totals.
      again, looping: answers that were asked again because they repeat themselves, and those of them that still do.
      reasons: failures by reason.
      notes: what was done to pictures, without numbers.
      flags: images by what is odd about their texts.
      objects: boxes and points by what was asked for.
      openings: first words of the texts.
      lengths: words of the texts.
      ms: milliseconds by stage, summed.
    """

    images: int = 0
    failed: int = 0
    tokens: int = 0
    again: int = 0
    looping: int = 0
    reasons: Frequent = field(default_factory=Frequent)
    notes: Frequent = field(default_factory=Frequent)
    flags: Counter[str] = field(default_factory=Counter)
    objects: Frequent = field(default_factory=Frequent)
    openings: Frequent = field(default_factory=Frequent)
    lengths: Lengths = field(default_factory=Lengths)
    ms: Counter[str] = field(default_factory=Counter)

    def add(self, record: Record, odd: tuple[Flag, ...]) -> None:
        self.images += 1
        self.tokens += record.tokens
        again, looping = asked_again(record.results)
        self.again, self.looping = self.again + again, self.looping + looping
        self.flags.update(odd)
        self.ms.update(record.ms)
        if record.status == "failed":
            self.failed += 1
            self.reasons.add(record.reason)
        for each in {kind(note) for note in notes(record)}:
            self.notes.add(each)
        for result in record.results:
            values = [result[name] for name, of in kinds().items() if of.places and result.get(name)]
            found = sum(len(value) if isinstance(value, list) else 1 for value in values)
            if found:
                self.objects.add(asked_in(result), found)
        for text in texts(record.results):
            self.openings.add(opening(text))
            self.lengths.add(len(text.split()))


@dataclass(frozen=True, slots=True)
class Collection:
    """A journal as the page shows it.

    Attributes:
      header: of the run.
      counts: over all images.
      shown: the images on the page, in the order of the journal.
      longest, shortest: places (`Picked.number`) of those with the longest and the shortest texts.
      notice: which images are shown, in words; empty if all are.
      damage: lines of the journal that cannot be read.
    """

    header: Header
    counts: Counts
    shown: list[Picked]
    longest: frozenset[int]
    shortest: frozenset[int]
    notice: str
    damage: int


def collect(reader: JournalReader, options: ReportOptions) -> Collection:
    """Reads the whole journal once; holds no more records than are shown."""
    counts = Counts()
    sample, noted = Smallest[Picked](options.images), Smallest[Picked](_NOTED)
    failed, flagged = Smallest[Picked](options.odd), Smallest[Picked](options.odd)
    longest, shortest = Smallest[Picked](_EXTREMES), Smallest[Picked](_EXTREMES)
    for number, record in enumerate(reader.records()):
        picked = Picked(number, record, flags(record.results))
        counts.add(record, picked.flags)
        rank = digest(record.key)
        sample.offer(rank, picked)
        if record.status == "failed":
            failed.offer(rank, picked)
        if picked.flags:
            flagged.offer(rank, picked)
        if notes(record):
            noted.offer(rank, picked)
        if found := texts(record.results):
            words = sum(len(text.split()) for text in found)
            shortest.offer((words << 64) + rank, picked)
            longest.offer((-words << 64) + rank, picked)
    extremes = max(1, min(_EXTREMES, longest.offers // 10))
    most, least = list(longest)[:extremes], list(shortest)[:extremes]
    shown = {each.number: each for group in (sample, failed, flagged, noted, most, least) for each in group}
    return Collection(
        reader.header,
        counts,
        [shown[number] for number in sorted(shown)],
        frozenset(each.number for each in most),
        frozenset(each.number for each in least),
        "" if len(shown) == counts.images else _notice(sample, failed, flagged),
        len(reader.damage),
    )


def notes(record: Record) -> list[str]:
    """What was done to the picture: the warnings that are not about the texts."""
    return [warning for warning in record.warnings if warning not in WARNINGS.values()]


def _notice(sample: Smallest[Picked], failed: Smallest[Picked], flagged: Smallest[Picked]) -> str:
    parts = [f"a sample of {len(sample):,} of {sample.offers:,} images, the same in every report"]
    for name, group in (("failed", failed), ("flagged", flagged)):
        if group.offers:
            which = "all" if len(group) == group.offers else f"{len(group):,} of the"
            parts.append(f"{which} {group.offers:,} {name}")
    return f"Shown are {parts[0]}" + (", and " + " and ".join(parts[1:]) if parts[1:] else "") + "."
