"""The routes of files, for OpenAI's clients: what batches read and write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import Receive, Scope, Send

from jaxphoton.bodies.faults import BodyError
from jaxphoton.messages import quoted
from jaxphoton.server.batching import Batches
from jaxphoton.server.listing import MOST, page, parameters
from jaxphoton.server.operation import Described, Operation, Parameter
from jaxphoton.server.storage import no_room

PURPOSE = "batch"
_FIELDS, _FIELD_BYTES = 16, 64 << 10
# In the order in which they are told.
_SHOWN = ("id", "object", "bytes", "created_at", "expires_at", "filename", "purpose", "status", "status_details")

FILE = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "file"},
        "bytes": {"type": "integer"},
        "created_at": {"type": "integer"},
        "filename": {"type": "string"},
        "purpose": {"type": "string"},
        "status": {"const": "processed"},
    },
    "required": ["id", "object", "bytes", "created_at", "filename", "purpose", "status"],
}
DELETED = {
    "type": "object",
    "properties": {"id": {"type": "string"}, "object": {"const": "file"}, "deleted": {"const": True}},
    "required": ["id", "object", "deleted"],
}
UPLOAD = {
    "type": "object",
    "properties": {"purpose": {"const": PURPOSE}, "file": {"type": "string", "format": "binary"}},
    "required": ["purpose", "file"],
}


def list_of(kind: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a page."""
    return {
        "type": "object",
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": kind},
            "has_more": {"type": "boolean"},
        },
        "required": ["object", "data", "has_more"],
    }


ID = Parameter("id", {"type": "string"}, "path", required=True)


def routes(batches: Batches) -> list[Operation]:
    files = batches.files

    async def create(request: Request) -> Response:
        async with _form(request) as form:
            purpose, upload = _checked(form)
            added = await asyncio.to_thread(files.add, upload.file, upload.filename or "file", purpose)
        return JSONResponse(_shown(added))

    async def every(request: Request) -> Response:
        purpose = request.query_params.get("purpose")
        found = [each for each in files.records.newest_first() if purpose in (None, each["purpose"])]
        return JSONResponse(page(request, found, _shown, MOST, MOST))

    async def one(request: Request) -> Response:
        return JSONResponse(_shown(files.records.get(request.path_params["id"])))

    async def content(request: Request) -> Response:
        found = files.records.get(request.path_params["id"])
        # What somebody has uploaded is never shown as a page of this address.
        headers = {"Content-Disposition": "attachment", "X-Content-Type-Options": "nosniff", "Accept-Ranges": "none"}
        return _Whole(files.path(found["id"]), headers=headers, media_type="application/octet-stream")

    async def delete(request: Request) -> Response:
        number = request.path_params["id"]
        await asyncio.to_thread(batches.remove_file, number)
        return JSONResponse({"id": number, "object": "file", "deleted": True})

    told = Described
    upload = told("Uploads a file of requests.", UPLOAD, "multipart/form-data", FILE, errors=(507,))
    purpose = Parameter("purpose", {"type": "string"}, description="only files of this purpose")
    listed = told("Lists files, the newest first.", answer=list_of(FILE), parameters=(purpose, *parameters(MOST)))
    raw = told(
        "The content of a file.",
        answer={"type": "string", "format": "binary"},
        answer_type="application/octet-stream",
        parameters=(ID,),
    )
    return [
        Operation("POST", "/v1/files", create, upload),
        Operation("GET", "/v1/files", every, listed),
        Operation("GET", "/v1/files/{id}", one, told("Tells of a file.", answer=FILE, parameters=(ID,))),
        Operation("GET", "/v1/files/{id}/content", content, raw),
        Operation("DELETE", "/v1/files/{id}", delete, told("Deletes a file.", answer=DELETED, parameters=(ID,))),
    ]


class _Whole(FileResponse):
    """A file, never a part of it: what is wrong with a range would be told as a plain text."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [each for each in scope["headers"] if each[0] != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)


def _shown(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record.get(name) for name in _SHOWN}


@asynccontextmanager
async def _form(request: Request) -> AsyncGenerator[FormData, None]:
    """The parts of a multipart body; large files are on the disk already.

    Raises:
      BodyError: it is none.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise BodyError("the body must be multipart/form-data with the fields purpose and file")
    try:
        form = await request.form(max_files=1, max_fields=_FIELDS, max_part_size=_FIELD_BYTES)
    except HTTPException as error:
        raise BodyError(f"the body is no multipart/form-data: {error.detail}") from None
    except OSError as error:
        raise no_room(error) from error
    try:
        yield form
    finally:
        await form.close()


def _checked(form: FormData) -> tuple[str, UploadFile]:
    purpose, upload = form.get("purpose"), form.get("file")
    if purpose != PURPOSE:
        given = "" if not isinstance(purpose, str) else f", not {quoted(purpose)}"
        raise BodyError(f"purpose must be {PURPOSE!r}{given}", "purpose")
    if not isinstance(upload, UploadFile):
        raise BodyError("there is no file", "file")
    if not upload.size:
        raise BodyError("the file is empty", "file")
    return PURPOSE, upload
