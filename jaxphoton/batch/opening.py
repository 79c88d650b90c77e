"""The beginning of a run: its journal, and what it takes over from it."""

from __future__ import annotations

from pathlib import Path

from jaxphoton.batch.errors import BatchError, OptionError
from jaxphoton.batch.journal import Header, Journal, JournalReader
from jaxphoton.batch.journal.reading import latest_header
from jaxphoton.batch.observer import RunObserver
from jaxphoton.batch.options import OutputOptions, RunOptions
from jaxphoton.image.ways import default_resize, fast_fault

_DAMAGE_TOLD = 5


def resized(options: RunOptions, journal: Path | None) -> RunOptions:
    """With how pictures are resized: where nobody says it as before, so that a run goes on as it was begun.

    Raises:
      OptionError: it cannot be had here.
    """
    how = options.pictures.resize
    if how is None:
        before = latest_header(journal) if journal is not None and not options.output.restart else None
        how = default_resize() if before is None else before.resize
    if how == "fast" and (fault := fast_fault()):
        raise OptionError("{resize} fast {fault}; exact is always there", fault=fault)
    return options.changed(resize=how)


def open_journal(path: Path, header: Header, output: OutputOptions, observer: RunObserver) -> Journal:
    """The journal of a run.

    Raises:
      BatchError: it cannot be used; SettingsDiffer if it is that of another run.
    """
    if output.restart and path.exists():
        JournalReader(path).close()  # refuses what is not a journal
        try:
            path.unlink()
        except OSError as error:
            raise BatchError(f"{path}: cannot be removed: {error.strerror}") from error
    journal = Journal(path, header, allow_changes=output.allow_changes, retry_failed=output.retry_failed)
    if journal.torn:
        observer.note(f"{path}: a torn last line was cut off; what it was about is done again")
    for damage in journal.damage[:_DAMAGE_TOLD]:
        observer.note(f"{path}: {damage}; what it was about is done again")
    return journal
