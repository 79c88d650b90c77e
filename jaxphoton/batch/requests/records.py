"""Requests in a journal: a record for each line that was answered, or could not be; and the lines made of them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import msgspec

from jaxphoton.batch.journal.record import Record
from jaxphoton.batch.requests.lines import RequestLine
from jaxphoton.bodies.faults import Fault
from jaxphoton.requests.answer import Result

TASK = "request"  # as the journal calls what was asked


def request_id() -> str:
    return uuid.uuid4().hex


def answered(line: RequestLine, request: str, body: Mapping[str, Any], results: tuple[Result, ...]) -> Record:
    """The record of a line whose response is `body`."""
    finishes = [result.finish_reason for result in results]
    end = {
        "tokens": sum(len(result.tokens) for result in results),
        "finish_reason": "length" if "length" in finishes else "stop",
    }
    return Record(str(line.number), "ok", results=(_row(line, request, 200, body) | end,))


def failed(line: RequestLine, request: str, fault: Fault) -> Record:
    """The record of a line that has no answer."""
    reason = fault.code or "invalid_request"
    row = _row(line, request, fault.status, fault.body)
    return Record(str(line.number), "failed", reason=reason, fault=fault.message, results=(row,))


def line_of(record: Record) -> bytes:
    """The line of a record, in OpenAI's form; "error" is what the body of a failed one says, too."""
    row = record.results[0]
    response = row["response"]
    error = None if record.status == "ok" else response["body"]["error"]
    line = {"id": row["id"], "custom_id": row["custom_id"], "response": response, "error": error}
    return msgspec.json.encode(line) + b"\n"  # what is no number becomes null


def _row(line: RequestLine, request: str, status: int, body: Mapping[str, Any]) -> dict[str, Any]:
    response = {"status_code": status, "request_id": request, "body": body}
    return {"task": TASK, "id": f"batch_req_{request}", "custom_id": line.custom_id, "response": response}
