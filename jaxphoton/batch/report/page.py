"""Writes the page."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

from jaxphoton.batch.errors import ExportError
from jaxphoton.batch.exports.atomic import replacing
from jaxphoton.batch.journal.reading import JournalReader
from jaxphoton.batch.report.collect import Collection, ReportOptions, collect
from jaxphoton.batch.report.entries import entry, overview
from jaxphoton.batch.report.thumbnails import Thumbnail, thumbnails
from jaxphoton.batch.sources import Source
from jaxphoton.files import open_regular

DEFAULT = ReportOptions()
_SCRIPTS = ("element.js", "select.js", "card.js", "panels.js", "page.js")


@dataclass(frozen=True, slots=True)
class Report:
    """What a page shows.

    Attributes:
      images: in the journal.
      shown: on the page.
      pictures: of those shown, with a thumbnail.
    """

    images: int
    shown: int
    pictures: int


def write_report(
    journal: str | os.PathLike,
    path: str | os.PathLike,
    *,
    source: Source | None = None,
    summary: Mapping[str, Any] | None = None,
    options: ReportOptions = DEFAULT,
) -> Report:
    """Makes one HTML page of a journal, which may still be growing; replaced as a whole.

    Args:
      source: what the run has read: for the pictures of images that are no files on this machine.
      summary: of the run, shown as it is: name -> number or text. Known names get a label and a unit: "images_per_s",
        "tokens_per_s", "seconds", "compiling", "cost_per_million" (number in dollars, or text), and "stages", a mapping
        from the name of a stage to its share of the time, 0 to 1.

    Raises:
      ExportError: the page cannot be written.
      JournalError: the journal cannot be read.
      SourceError: the source cannot be used.
    """
    target = Path(path)
    with JournalReader(journal) as reader:
        if os.path.exists(target) and target.samefile(reader.path):
            raise ExportError(f"{target} is the journal itself")
        if os.path.exists(target) and not is_page(target):
            raise ExportError(f"{target}: this is there already and is no page; a report would replace it")
        collection = collect(reader, options)
        try:
            with replacing(target) as file:
                return _write(file, collection, source, summary or {}, options)
        except OSError as error:
            raise ExportError(f"{target}: {error.strerror or error}") from error


def is_page(path: Path) -> bool:
    """Whether a file may be replaced by a report: it is a page itself, or empty."""
    try:
        with open_regular(path) as file:
            return (file.read(1024).lower().lstrip() or b"<html").startswith((b"<!doctype html", b"<html"))
    except OSError:
        return False


def _write(
    file: IO[bytes], collection: Collection, source: Source | None, summary: Mapping[str, Any], options: ReportOptions
) -> Report:
    head, tail = _frame(f"{collection.counts.images:,} images")
    file.write(head)
    numbers = {picked.record.key: number for number, picked in enumerate(collection.shown)}
    pictures: dict[str, Thumbnail] = {}
    for key, picture in thumbnails({each.record.key: each.record.path for each in collection.shown}, source, options):
        if picture.webp:
            # Elements of their own: a browser decodes a picture no earlier than it comes into view.
            data = base64.b64encode(picture.webp)
            file.write(b'<script type="text/plain" id="thumbnail-%d">%b</script>\n' % (numbers[key], data))
        pictures[key] = replace(picture, webp=b"")
    entries = [entry(each, collection, pictures[each.record.key]) for each in collection.shown]
    file.write(b'<script type="application/json" id="data">')
    file.write(_json(overview(collection, summary) | {"entries": entries}))
    file.write(b"</script>\n" + tail)
    return Report(collection.counts.images, len(entries), sum(each.width > 0 for each in pictures.values()))


def _json(values: Any) -> bytes:
    """JSON that no text can break out of: without "<", and in ASCII, so that lone surrogates come through."""
    return json.dumps(values, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").encode("ascii")


def _frame(title: str) -> tuple[bytes, bytes]:
    """The page before and after its data."""
    style, script = _asset("page.css"), "\n".join(_asset(name) for name in _SCRIPTS)
    # The hashes admit this style and this script and no other, and nothing from anywhere.
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {"policy": policy, "title": html.escape(title), "style": style, "script": script}
    page = re.sub(r"{{(policy|title|style|script)}}", lambda found: parts[found[1]], _asset("page.html"))
    head, tail = page.split("{{data}}\n")
    return head.encode(), tail.encode()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _asset(name: str) -> str:
    return files("jaxphoton.batch.report").joinpath("assets", name).read_text("utf-8")
