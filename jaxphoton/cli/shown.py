"""What a command shows of its run: lines for images, how far it is, and what there is to say."""

from __future__ import annotations

import os
import sys

from tqdm import tqdm

from jaxphoton.batch.exports.lines import LineForm
from jaxphoton.batch.journal.record import Record
from jaxphoton.batch.observer import Beginning, RunObserver
from jaxphoton.cli.base import say
from jaxphoton.cli.progress import Progress
from jaxphoton.cli.readable import readable

_STOPPING = b"\nstopping: what is under way is finished first; once more to stop now\n"
_COUNT_S = 0.5  # to know the number of images for the first line


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
        if self._json or beginning.journal is None:
            self._form = LineForm(beginning.settings)
        self._done = beginning.done
        self._progress = Progress(beginning.tally, beginning.count, beginning.done)

    def ask(self, any_left: bool) -> None:
        assert self._progress is not None
        total = self._progress.total(_COUNT_S)
        many = "images" if total is None else f"{total:,} image{'s' * (total != 1)}"
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
                _print(self._form.text(due))
        elif not self._quiet:
            what = readable(record.results) if record.status == "ok" else f"ERROR {record.fault}"
            _print(f"{record.key}: {what}")
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


def _print(line: str) -> None:
    file = sys.stdout
    with tqdm.external_write_mode(file=file):  # keeps the bar off the line when both go to the terminal
        file.write(line + "\n")
        file.flush()
