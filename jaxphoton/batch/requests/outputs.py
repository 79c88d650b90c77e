"""The outputs of a run over requests, made of its journal: in the order of the lines, each whole or not at all."""

from __future__ import annotations

from pathlib import Path

from jaxphoton.batch.errors import ExportError
from jaxphoton.batch.exports.atomic import keeping, replacing
from jaxphoton.batch.journal import JournalReader
from jaxphoton.batch.places import Places
from jaxphoton.batch.requests.records import line_of


def write_answers(journal: JournalReader, last: int, places: Places, errors: Path | None, inputs: Path) -> None:
    """Writes the lines that are done.

    Args:
      last: the number of the last line.
      places: of the run; `one_file` takes the lines.
      errors: takes those that failed, in place of `one_file`.
      inputs: the file of requests, which no output replaces.

    Raises:
      ExportError: a file cannot be written.
    """
    out = places.one_file
    assert out is not None
    wanted = {out: ("ok", "failed")} if errors is None else {out: ("ok",), errors: ("failed",)}
    for path, statuses in wanted.items():
        try:
            with keeping([*places.others(path), inputs]), replacing(path) as file:
                for number in range(1, last + 1):
                    record = journal.get(str(number))
                    if record is not None and record.status in statuses:
                        file.write(line_of(record))
        except OSError as error:
            raise ExportError(f"{path}: {error.strerror or error}") from error
