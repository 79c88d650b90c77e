"""The lines of a file of requests: `{"custom_id", "method", "url", "body"}`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from jaxphoton.batch.errors import SourceError
from jaxphoton.batch.journal.keymap import KeyMap
from jaxphoton.batch.sources.lists import bounded_lines
from jaxphoton.bodies.endpoints import Endpoint, endpoint_of
from jaxphoton.bodies.faults import BodyError
from jaxphoton.files import open_regular, reason
from jaxphoton.messages import quoted

_CHUNK = 1 << 20
_BOM = b"\xef\xbb\xbf"
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class RequestLine:
    """One line.

    Attributes:
      number: from 1.
      custom_id: None where it has none.
      endpoint, body: what it asks; None and nothing where `fault` says why it cannot be asked.
    """

    number: int
    custom_id: str | None = None
    endpoint: Endpoint | None = None
    body: bytes = b""
    fault: BodyError | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """What a file of requests is, found by reading all of it once.

    Attributes:
      last: the number of its last line.
      lines: those that are not blank.
      sha256: of the file.
    """

    last: int
    lines: int
    sha256: str


class RequestFile:
    """A file of requests.

    Args:
      url: what all lines have to ask; None for whatever there is.

    Raises:
      SourceError: it cannot be read, or there is nothing in it.
    """

    def __init__(self, path: str | os.PathLike[str], url: str | None = None):
        self.path, self._url = Path(path), url
        self.survey = self._surveyed()

    def lines(self) -> Iterator[RequestLine]:
        """All lines but blank ones; what is wrong with one is its `fault`. Memory: 16 to 48 bytes a line.

        Raises:
          SourceError: the file cannot be read.
        """
        seen = KeyMap("Q")
        for number, line in self._numbered():
            read = _read(number, line, self._url)
            if read.custom_id is not None:
                first = seen.get(read.custom_id)
                if first is None:
                    seen[read.custom_id] = number
                else:
                    again = f"custom_id {quoted(read.custom_id)} is that of line {first}, too"
                    fault = BodyError(again, "custom_id", "duplicate_custom_id")
                    read = RequestLine(number, read.custom_id, fault=fault)
            yield read

    def _numbered(self) -> Iterator[tuple[int, bytes | None]]:
        """Numbers from 1, and the lines that hold something; None for one that is too long."""
        try:
            with open_regular(self.path) as file:
                for number, line in enumerate(bounded_lines(file), 1):
                    if number == 1 and line is not None:
                        line = line.removeprefix(_BOM)
                    if line is None or line.strip():
                        yield number, line
        except (OSError, ValueError) as error:
            raise SourceError(f"{self.path}: {reason(error)}") from error

    def _surveyed(self) -> Survey:
        last = lines = 0
        digest = hashlib.sha256()
        for number, line in self._numbered():
            last, lines = number, lines + 1
            digest.update(b"\0" if line is None else line)
            digest.update(b"\n")
        if not lines:
            raise SourceError(f"{self.path}: there is no request in it")
        return Survey(last, lines, digest.hexdigest())


def _read(number: int, line: bytes | None, only: str | None) -> RequestLine:
    custom_id = None
    try:
        if line is None:
            raise BodyError("the line is too long")
        parts = _parts(line)
        custom_id = _custom_id(parts)
        method = _text(parts, "method") if "method" in parts else "POST"
        if method != "POST":
            raise BodyError(f"method must be POST, not {quoted(method)}", "method")
        url = _text(parts, "url")
        endpoint = endpoint_of(url)
        if only not in (None, url):
            raise BodyError(f"url must be {only}, that of the batch, not {quoted(url)}", "url", "mismatched_url")
        if "body" not in parts:
            raise BodyError("there is no body", "body")
        return RequestLine(number, custom_id, endpoint, bytes(parts["body"]))
    except BodyError as error:
        if custom_id is None:  # nothing else tells which line this is
            error = BodyError(f"line {number}: {error}", error.param, error.code)
        return RequestLine(number, custom_id, fault=error)


def _parts(line: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _decode(line)
    except msgspec.ValidationError:
        raise BodyError("the line is not a JSON object") from None
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise BodyError(f"the line is not JSON: {error}", code="invalid_json_line") from None


def _custom_id(parts: dict[str, msgspec.Raw]) -> str:
    if "custom_id" not in parts:
        raise BodyError("there is no custom_id", "custom_id", "missing_custom_id")
    text = _text(parts, "custom_id")
    if not text:
        raise BodyError("custom_id is empty", "custom_id", "missing_custom_id")
    return text


def _text(parts: dict[str, msgspec.Raw], name: str) -> str:
    if name not in parts:
        raise BodyError(f"there is no {name}", name)
    try:
        return msgspec.json.decode(parts[name], type=str)
    except msgspec.ValidationError:
        raise BodyError(f"{name} must be a text", name) from None
    except msgspec.DecodeError as error:  # which looking for its end did not show
        raise BodyError(f"{name} is no text of JSON: {error}", name) from None
