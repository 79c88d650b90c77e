"""How far a run is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from jaxphoton.batch.summary import Tally, duration

LOG_S = 30.0


class Progress:
    """Shows a tally as it grows. A context manager.

    Attributes:
      tally: the tally.

    Args:
      count: how many images there are, None if nobody knows; called in a thread, it may take long.
      done: of those, how many were done before.
    """

    def __init__(
        self,
        tally: Tally,
        count: Callable[[], int | None],
        done: int,
        stream: TextIO | None = None,
        log_s: float = LOG_S,
    ):
        self.tally, self._done, self._log_s = tally, done, log_s
        self._stream = stream or sys.stderr or io.StringIO()  # closed: nobody looks
        self._bar, self._total = None, None
        self._logged = time.monotonic()
        if self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=None, initial=done, unit="image", file=self._stream, dynamic_ncols=True)
        self._counter = threading.Thread(target=lambda: self._count(count), name="jaxphoton-count", daemon=True)
        self._counter.start()

    def total(self, timeout: float) -> int | None:
        """How many images there are, if that is known within `timeout` seconds."""
        self._counter.join(timeout)
        return self._total

    def start(self) -> None:
        """The time of the tally counts from here on."""
        self._logged = time.monotonic()
        if self._bar is not None:
            self._bar.unpause()

    def update(self) -> None:
        """After each image."""
        tally = self.tally
        if self._bar is not None:
            if self._bar.total != self._total:
                self._bar.total = self._total
            failed = f", {tally.failed:,} failed" if tally.failed else ""
            self._bar.set_postfix_str(f"{tally.tokens / max(tally.seconds, 1e-9):.0f} tokens/s{failed}", refresh=False)
            self._bar.update()
        elif time.monotonic() - self._logged >= self._log_s:
            self._logged = time.monotonic()
            print(self.line(), file=self._stream, flush=True)

    def skip(self) -> None:
        """An image is done without being asked about."""
        self._done += 1
        if self._bar is not None:
            self._bar.initial += 1
            self._bar.n += 1

    def line(self) -> str:
        """Where the run is, as one line."""
        tally, seconds = self.tally, self.tally.seconds
        done, rate = self._done + tally.images, tally.images / max(seconds, 1e-9)
        share = f" of {self._total:,} ({done / max(1, self._total):.0%})" if self._total else ""
        left = f", {duration((self._total - done) / rate)} left" if self._total and rate and done < self._total else ""
        speed = f"{rate:.2f} images/s, {tally.tokens / max(seconds, 1e-9):.0f} tokens/s"
        return f"{done:,}{share} images, {speed}, {tally.failed:,} failed{left}"

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _count(self, count: Callable[[], int | None]) -> None:
        try:
            self._total = count()
        except Exception:  # the run itself finds out, and says so
            self._total = None
