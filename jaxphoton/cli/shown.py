"""What a command shows of its run: lines for images, how far it is, and what there is to say."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

from jaxphoton.batch.exports.lines import LineForm
from jaxphoton.batch.journal.record import Record
from jaxphoton.batch.observer import Beginning, RunObserver
from jaxphoton.batch.summary import Tally, duration
from jaxphoton.cli.base import CommandError, say
from jaxphoton.requests.skills import readable

_STOPPING = b"\nstopping: what is under way is finished first; once more to stop now\n"
LOG_S = 30.0
_COUNT_S = 0.5  # to know the number of images for the first line


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
            self._bar = tqdm(total=None, initial=done, unit=tally.what, file=self._stream, dynamic_ncols=True)
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
        speed = f"{rate:.2f} {tally.what}s/s, {tally.tokens / max(seconds, 1e-9):.0f} tokens/s"
        return f"{done:,}{share} {tally.what}s, {speed}, {tally.failed:,} failed{left}"

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


class Shown(RunObserver):
    """Prints JSON lines in the order of the images, or a line to read for each, in the order in which they finish; all
    else goes to stderr.

    Args:
      command: the name of the command.
      about: of the run, for its first line: the model, and how texts are generated.
      json_lines: print JSON; a run without a journal does anyway.
      quiet: print no lines to read.
    """

    def __init__(self, command: str, about: str, json_lines: bool, quiet: bool):
        self._command, self._about, self._json, self._quiet = command, about, json_lines, quiet
        self._form: LineForm | None = None
        self._progress: Progress | None = None
        self._early: dict[int, Record] = {}
        self._done = self._next = 0

    def note(self, text: str) -> None:
        say(self._command, text)

    def begin(self, beginning: Beginning) -> None:
        if sys.stdout is None and beginning.journal is None:
            raise CommandError("standard output is closed, and nothing else would keep the results: give --out")
        if self._json or beginning.journal is None:
            self._form = LineForm(beginning.settings)
        self._done = beginning.done
        self._progress = Progress(beginning.tally, beginning.count, beginning.done)

    def ask(self, any_left: bool) -> None:
        assert self._progress is not None
        total = self._progress.total(_COUNT_S)
        what = self._progress.tally.what
        many = f"{what}s" if total is None else f"{total:,} {what}{'s' * (total != 1)}"
        before = f", {self._done:,} done before" if self._done else ""
        self.note(f"{many}{before}, {self._about}")
        if not any_left:
            self.note("nothing is left to do")

    def answer(self, compiling: float) -> None:
        assert self._progress is not None
        self._progress.start()

    def image(self, number: int, record: Record) -> None:
        if self._form is not None:
            self._early[number] = record
            while (due := self._early.pop(self._next, None)) is not None:
                self._next += 1
                print_line(self._form.text(due))
        elif not self._quiet:
            what = readable(record.results) if record.status == "ok" else f"ERROR {record.fault}"
            print_line(f"{record.key}: {what}")
        assert self._progress is not None
        self._progress.update()

    def keep(self) -> None:
        assert self._progress is not None
        self._progress.skip()

    def stop(self) -> None:
        os.write(2, _STOPPING)

    def end(self) -> None:
        assert self._progress is not None
        self._progress.close()


def print_line(line: str) -> None:
    """A line to standard output, if there is one.

    Raises:
      CommandError: it takes no more.
    """
    file = sys.stdout
    if file is None:  # closed: nobody looks
        return
    try:
        with tqdm.external_write_mode(file=file):  # keeps the bar off the line when both go to the terminal
            file.write(line + "\n")
            file.flush()
    except BrokenPipeError:  # its reader has gone; not an error, see `main`
        raise
    except OSError as error:
        # Without this, Python complains once more when it flushes at exit.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, file.fileno())
        os.close(null)
        raise CommandError(f"standard output: {error.strerror}") from error
