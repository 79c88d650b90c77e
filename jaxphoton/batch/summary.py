"""What a run came to."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxphoton.batch.journal.record import Record
from jaxphoton.batch.quality import WARNINGS, asked_again

MILLION = 1_000_000
SHORT_S = 0.1  # not worth a line


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run came to.

    Attributes:
      images: asked about, or tried to read, in this run.
      done: in the journal, those of earlier runs too; without one, `images`.
      failed: of `done`, the images without a result.
      lost: results that are in the journal, and could not be written to the output.
      kept: images whose text was there already, and stays as it was.
      stopped: before its end, as it was asked to; the same run goes on.
      summary: figures, see `Tally.summary`; empty if no image was left to ask about.
      out, journal, failures, report: the files; None for those that there are not.
    """

    images: int
    done: int
    failed: int
    lost: int = 0
    kept: int = 0
    stopped: bool = False
    summary: Mapping[str, Any] = field(default_factory=dict)
    out: Path | None = None
    journal: Path | None = None
    failures: Path | None = None
    report: Path | None = None


class Tally:
    """Counts the records of a run.

    Args:
      what: they are about, in words.

    Attributes:
      images, failed, tokens: of this run.
      compiling: seconds that were over before its time began.
      odd: images by what is odd about their texts.
      again, looping: answers that were asked again because they repeat themselves, and those of them that still do.
      reasons: failures by reason.
    """

    def __init__(self, what: str = "image"):
        self.what = what
        self.images = self.failed = self.tokens = self.again = self.looping = 0
        self.odd: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.start()

    def start(self, compiling: float = 0.0) -> None:
        """The time counts from here on: everything is loaded and compiled.

        Args:
          compiling: seconds that the latter took.
        """
        self._began, self.compiling = time.monotonic(), compiling

    def add(self, record: Record) -> None:
        self.images += 1
        self.tokens += record.tokens
        if record.status == "failed":
            self.failed += 1
            self.reasons[record.reason] += 1
        again, looping = asked_again(record.results)
        self.again, self.looping = self.again + again, self.looping + looping
        self.odd.update(warning for warning in record.warnings if warning in WARNINGS.values())

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def summary(self, stages: Mapping[str, float], price: float | None = None) -> dict[str, Any]:
        """Figures of the run, without the time in which nothing was compiled yet; rates and costs only where an image
        was answered.

        Args:
          stages: seconds of the device by what it did.
          price: of an hour of the machine.
        """
        seconds, total = self.seconds, sum(stages.values())
        figures: dict[str, Any] = {
            "images": self.images,
            "failed": self.failed,
            "tokens": self.tokens,
            "compiling": self.compiling,
            "seconds": seconds,
        }
        if self.images > self.failed and seconds:  # else nothing was measured
            rate = self.images / seconds
            figures |= {"images_per_s": rate, "tokens_per_s": self.tokens / seconds}
            if price is not None:
                figures["cost_per_million"] = cost_per_million(rate, price)
        if self.again:
            figures |= {"asked_again": self.again, "mended": self.again - self.looping}
        figures["stages"] = {name: spent / total for name, spent in stages.items()} if total else {}
        return figures

    def lines(self, figures: Mapping[str, Any]) -> list[str]:
        """The summary for people."""
        lines = [f"{self.images:,} {self.what}{'s' * (self.images != 1)} in {duration(figures['seconds'])}"]
        if "images_per_s" in figures:
            lines[0] += f": {figures['images_per_s']:.2f} {self.what}s/s, {figures['tokens_per_s']:.0f} tokens/s"
        if figures["compiling"] >= SHORT_S:
            lines.append(f"making programs ready took {duration(figures['compiling'])} before that")
        if figures["stages"]:
            lines.append("time: " + ", ".join(f"{name} {share:.0%}" for name, share in figures["stages"].items()))
        if "cost_per_million" in figures:
            lines.append(f"a million {self.what}s would cost {figures['cost_per_million']:,.2f}")
        if "asked_again" in figures:
            again, mended = figures["asked_again"], figures["mended"]
            still = f"{again - mended:,} still repeat{'s' * (again - mended == 1)}"
            lines.append(f"{again:,} asked again, {mended:,} mended, {still}")
        for what, counts in (("failed", self.reasons), ("odd", self.odd)):
            if counts:
                lines.append(f"{what}: " + ", ".join(f"{name} {number:,}" for name, number in counts.most_common()))
        return lines


def cost_per_million(images_per_s: float, price: float) -> float:
    """What a million images cost, at `price` an hour."""
    return MILLION / images_per_s / 3600 * price


def duration(seconds: float) -> str:
    """Seconds as people read them: `3 h 07 min`, `2 min 05 s`, `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
