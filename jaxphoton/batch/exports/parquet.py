"""A table with a row for each image."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from jaxphoton.batch.errors import ExportError
from jaxphoton.batch.exports.atomic import replacing
from jaxphoton.batch.exports.options import ExportReport
from jaxphoton.batch.exports.rows import encodable, recaption
from jaxphoton.batch.journal.reading import JournalReader

_ROWS = 10_000


def load_pyarrow() -> Any:
    """
    Raises:
      ExportError: pyarrow is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise ExportError("writing .parquet needs pyarrow: pip install 'jaxphoton[parquet]'") from error
    return pyarrow


def export_parquet(journal: JournalReader, out: Path, report: ExportReport) -> None:
    """The columns of `recaption`, failures included; a row group of rows at a time.

    Raises:
      ExportError: pyarrow is not installed.
    """
    pyarrow = load_pyarrow()
    from pyarrow.parquet import ParquetWriter

    schema, records = _schema(pyarrow), journal.records()
    with replacing(out) as file, ParquetWriter(file, schema) as writer:
        while rows := [encodable(recaption(record)) for record in islice(records, _ROWS)]:
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))
            report.written += len(rows)
            report.failed += sum(row["finish_reason"] == "error" for row in rows)


def _schema(arrow: Any) -> Any:
    text, number = arrow.string(), arrow.float64()
    corners = dict.fromkeys(("x_min", "y_min", "x_max", "y_max"), number)

    def structs(**fields: Any) -> Any:
        return arrow.list_(arrow.struct(fields))

    return arrow.schema(
        {
            "key": text,
            "url": text,
            "sha256": text,
            "width": arrow.int32(),
            "height": arrow.int32(),
            "org_caption": text,
            "re_caption": text,
            "re_captions": arrow.list_(text),
            "answers": structs(question=text, answer=text),
            "objects": structs(object=text, **corners),
            "points": structs(object=text, x=number, y=number),
            "segments": structs(object=text, path=text, **corners, fault=text),
            "output_tokens": arrow.int32(),
            "finish_reason": text,
            "error": text,
            "warnings": arrow.list_(text),
        }
    )
