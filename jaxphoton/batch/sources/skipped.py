"""What a source has passed over, for one line that says so."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

_KINDS = 6  # named; the rest are "other"


@dataclass(slots=True)
class Skipped:
    """Counts.

    Attributes:
      files: by suffix, or "hidden", "excluded", "without a suffix".
      folders: left out as a whole, by name.
      samples: of tars, those without an image.
    """

    files: Counter[str] = field(default_factory=Counter)
    folders: Counter[str] = field(default_factory=Counter)
    samples: int = 0

    def add(self, other: Skipped) -> None:
        self.files.update(other.files)
        self.folders.update(other.folders)
        self.samples += other.samples

    def lines(self) -> list[str]:
        """For people; empty if there is nothing to say."""
        lines = []
        if total := self.files.total():
            lines.append(f"{total:,} file{'s' * (total != 1)} passed over: {_listed(self.files)}")
        if total := self.folders.total():
            lines.append(f"{total:,} folder{'s' * (total != 1)} left out: {_listed(self.folders)}")
        if self.samples:
            lines.append(f"{self.samples:,} sample{'s' * (self.samples != 1)} without an image passed over")
        return lines


def _listed(counts: Counter[str]) -> str:
    kinds = sorted(counts.items(), key=lambda kind: (-kind[1], kind[0]))
    named = [f"{number:,} {name[:40]}" for name, number in kinds[:_KINDS]]
    if rest := sum(number for _, number in kinds[_KINDS:]):
        named.append(f"{rest:,} other")
    return ", ".join(named)
