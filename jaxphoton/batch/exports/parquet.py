"""A table with a row for each image."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from jaxphoton.batch.errors import ExportError
from jaxphoton.batch.exports.atomic import replacing
from jaxphoton.batch.exports.lines import encodable
from jaxphoton.batch.exports.options import ExportReport
from jaxphoton.batch.exports.rows import recaption, tables
from jaxphoton.batch.journal.reading import JournalReader
from jaxphoton.requests.skill import Shape

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
    before = {"key": "text", "url": "text", "sha256": "text", "width": "integer", "height": "integer"}
    captions = {"org_caption": "text", "re_caption": "text", "re_captions": ["text"]}
    found = {table: [skill.columns] for table, skill in tables().items()}
    after = {"output_tokens": "integer", "finish_reason": "text", "error": "text", "warnings": ["text"]}
    columns: dict[str, Shape] = before | captions | found | after
    return arrow.schema({name: arrow_type(shape, arrow) for name, shape in columns.items()})


def arrow_type(shape: Shape, arrow: Any) -> Any:
    """The type of the values of a column."""
    if isinstance(shape, Mapping):
        return arrow.struct([(name, arrow_type(each, arrow)) for name, each in shape.items()])
    if isinstance(shape, list):
        return arrow.list_(arrow_type(shape[0], arrow))
    return {"text": arrow.string, "integer": arrow.int32, "number": arrow.float64}[shape]()
