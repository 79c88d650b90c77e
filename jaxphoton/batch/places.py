"""Where the files of a run go, and a look before the work at whether they can be made there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jaxphoton.batch.errors import ExportError
from jaxphoton.batch.exports.atomic import Kept, probe
from jaxphoton.batch.exports.names import check_tars, fitted, is_pattern
from jaxphoton.batch.exports.options import fault_of
from jaxphoton.batch.exports.run import check_out, in_folder
from jaxphoton.batch.journal.reading import is_journal
from jaxphoton.batch.report.page import is_page
from jaxphoton.batch.sources import Source
from jaxphoton.batch.sources.beside import Beside, begins_like_an_image
from jaxphoton.batch.sources.containers import containers
from jaxphoton.batch.sources.item import IMAGE_SUFFIXES
from jaxphoton.batch.sources.opening import container_kind
from jaxphoton.batch.sources.storage import is_remote

JOURNAL, FAILURES = ".journal", ".failures.jsonl"
ALL = (0, 1)


def journal_of(out: str, form: str, shard: tuple[int, int] = ALL) -> Path:
    """The journal of an output: beside it, and of the same name, however the output is spelled. Shards that may share
    an output, a folder or a pattern, have a journal each.

    Raises:
      ExportError: the output is named by nothing.
    """
    if not out or "\0" in out:
        raise ExportError(f"{out!r} names no file and no folder")
    folder, name = os.path.split(out.rstrip("/"))
    # The journal of a link stays beside the link; but what ".." is, only the links before it say.
    path = Path(os.path.realpath(out)) if name in ("", ".", "..") else Path(os.path.realpath(folder), name)
    name = path.name
    if shard != ALL and (in_folder(out, form) or (form == "webdataset" and is_pattern(out))):
        name += f".{shard[0]}-of-{shard[1]}"
    # The root of a disk has nothing beside it, and no name.
    return path.parent / fitted(name or "jaxphoton", JOURNAL)


def failures_of(journal: Path) -> Path:
    """The list of failures of a run, beside its journal: journals of different names have different lists."""
    return journal.parent / fitted(journal.name.removesuffix(JOURNAL), FAILURES)


@dataclass(frozen=True, slots=True)
class Places:
    """The files that a run writes.

    Attributes:
      journal: of the run; None for one that only prints.
      out, form: the output, which may be a folder or a pattern of tars, and what it is; None where there is none.
      report: the page.
      trace: one more file, a timeline.
      shard: (index, count) of the run.
      failures: the list of failures; by default beside the journal.
      one_file: `out`, where it is a single file.

    Raises:
      ExportError: `out` looks like a pattern of tars, and is none.
    """

    journal: Path | None = None
    out: str | None = None
    form: str | None = None
    report: Path | None = None
    trace: Path | None = None
    shard: tuple[int, int] = ALL
    failures: Path | None = None
    one_file: Path | None = field(init=False)

    def __post_init__(self):
        # Once: what a name means must not change with what the run makes.
        if self.journal is not None and self.failures is None:
            object.__setattr__(self, "failures", failures_of(self.journal))
        object.__setattr__(self, "one_file", self._one_file())

    def _one_file(self) -> Path | None:
        if self.out is None or self.form is None or in_folder(self.out, self.form):
            return None
        return None if self.form == "webdataset" and is_pattern(self.out) else Path(self.out)

    def files(self) -> list[Path]:
        """All that are single files."""
        found = (self.one_file, self.journal, self.failures, self.report, self.trace)
        return [path for path in found if path is not None]

    def others(self, path: Path | None) -> list[Path]:
        """The files that must stay as they are while `path` is written, or with None an output that is several."""
        return [file for file in self.files() if file != path]

    def check(self, read: Iterable[str], source: Source | None = None) -> None:
        """Finds out whether all of them can be made.

        Args:
          read: files that the run reads, as `input_files` finds them.
          source: the images.

        Raises:
          ExportError: one cannot; the message names it, and why.
        """
        for path in self.files():
            _check_file(path)
        files, several = self.files(), self._check_out(source)
        if self.report is not None and os.path.exists(self.report) and not is_page(self.report):
            raise ExportError(f"{self.report}: this is there already and is no page; a report would replace it")
        inputs = Kept(read)
        for number, path in enumerate([*files, *several]):
            if is_journal(path) and path != self.journal:
                raise ExportError(f"{path} is the journal of a run: name another place")
            if path in inputs:
                raise ExportError(f"{path} is the input: name another place")
            if path in Kept(files[:number]):
                raise ExportError(f"{path} would be two things at once: name another place for one of them")
        self._probe()
        new = self.journal is not None and not os.path.exists(self.journal)
        if self.shard != ALL and new:
            for path in (self.one_file, *several):
                if path and os.path.exists(path):
                    raise ExportError(f"{path} is there already, and not from this shard: name another place")

    def _check_out(self, source: Source | None) -> list[Path]:
        """The files of an output that are known by now, if it is several."""
        if self.out is None or self.form is None:
            return []
        check_out(self.out, self.form)
        if self.form == "webdataset":
            found = [] if source is None else check_tars(source, self.out, self.shard)
            return [path for path in found if path != self.one_file]
        if self.one_file and re.search(r"%0?\d*d|\{\d+\.\.\d+\}", self.one_file.name):
            raise ExportError(f"{self.out}: only tars are written in several parts; this is one file")
        return []

    def _probe(self) -> None:
        folders = {str(path): path.absolute().parent for path in self.files()}
        if self.out is not None and self.form is not None and self.one_file is None:
            out = Path(self.out).absolute()
            if not os.path.isdir(out.parent):  # where a name is too long, `Path.is_dir` raises
                raise ExportError(f"{self.out}: no folder {out.parent}")
            folders[self.out] = out if in_folder(self.out, self.form) else out.parent
        for path, folder in folders.items():
            try:
                probe(folder)
            except OSError as error:
                elsewhere = "; name the journal elsewhere" if path == str(self.journal) else ""
                raise ExportError(f"{path}: cannot be written: {error.strerror or error}{elsewhere}") from error


def input_files(inputs: Iterable[str]) -> Iterator[str]:
    """The files of this machine among what a run reads: lists, tables, tars and images that are named, by patterns
    too; not what is in folders and lists, and no texts beside the images, which a run may change."""
    named = set(inputs)
    beside = Beside(named)
    for spec in sorted(named):
        kind = container_kind(spec)
        if is_remote(spec) or spec in beside:
            continue
        if os.path.isfile(spec):
            yield spec
        elif kind is not None:
            yield from containers(spec)


def _check_file(path: Path) -> None:
    """Refuses what can be no file of a run, by its name and by what is there."""
    if path.name == "-":
        raise ExportError(f"{path} is standard output; this has to be a file")
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # a name too long, links in a circle, a NUL
        raise ExportError(f"{path}: cannot be written: {fault_of(error)}") from error
    if os.path.isdir(path):
        raise ExportError(f"{path} is a folder, and this has to be a file")
    if os.path.exists(path) and not os.path.isfile(path):
        raise ExportError(f"{path} is no regular file")
    if not os.path.isdir(path.absolute().parent):
        raise ExportError(f"{path}: no folder {path.absolute().parent}")
    if path.suffix.lower() in IMAGE_SUFFIXES or begins_like_an_image(str(path)):
        raise ExportError(f"{path} is an image, or named like one: name another place")
