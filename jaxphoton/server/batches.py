"""The routes of batches, for OpenAI's clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from jaxphoton.bodies.decoding import decoded
from jaxphoton.bodies.endpoints import endpoint_of
from jaxphoton.bodies.faults import BodyError
from jaxphoton.server.batching import Batches
from jaxphoton.server.files import ID, list_of
from jaxphoton.server.listing import page, parameters
from jaxphoton.server.operation import Described, Operation
from jaxphoton.server.storage import no_room

MOST, USUAL = 100, 20
_SHOWN = (
    *("id", "object", "endpoint", "errors", "input_file_id", "completion_window", "status"),
    *("output_file_id", "error_file_id", "created_at", "in_progress_at", "expires_at", "finalizing_at"),
    *("completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at", "request_counts", "metadata"),
)
STATUSES = ("validating", "failed", "in_progress", "finalizing", "completed", "cancelling", "cancelled")
_COUNTS = ("total", "completed", "failed")
BATCH = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "batch"},
        "endpoint": {"type": "string"},
        "input_file_id": {"type": "string"},
        "completion_window": {"type": "string"},
        "status": {"enum": STATUSES},
        "output_file_id": {"type": ["string", "null"]},
        "error_file_id": {"type": ["string", "null"]},
        "created_at": {"type": "integer"},
        "request_counts": {
            "type": "object",
            "properties": {name: {"type": "integer"} for name in _COUNTS},
            "required": _COUNTS,
        },
    },
    "required": ["id", "object", "endpoint", "input_file_id", "status", "created_at", "request_counts"],
}


class BatchForm(msgspec.Struct):
    """The JSON form of a new batch. Keys that are not here are passed over."""

    input_file_id: str
    endpoint: str
    completion_window: str = "24h"
    metadata: dict[str, str] | None = None


def routes(batches: Batches) -> list[Operation]:
    async def create(request: Request) -> Response:
        form = decoded(await request.body(), BatchForm)
        try:
            endpoint_of(form.endpoint)
        except BodyError as error:
            raise BodyError(str(error), "endpoint", error.code) from None
        asked = form.endpoint, form.input_file_id, form.completion_window, form.metadata
        return JSONResponse(_shown(await _written(batches.create, *asked)))

    async def every(request: Request) -> Response:
        found = batches.states.newest_first()
        return JSONResponse(page(request, found, _shown, MOST, USUAL))

    async def one(request: Request) -> Response:
        return JSONResponse(_shown(batches.states.get(request.path_params["id"])))

    async def cancel(request: Request) -> Response:
        return JSONResponse(_shown(await _written(batches.cancel, request.path_params["id"])))

    told = Described
    new = told("Has the requests of a file answered.", BatchForm, answer=BATCH, errors=(507,))
    listed = told("Lists batches, the newest first.", answer=list_of(BATCH), parameters=parameters(MOST))
    ended = told("Gives a batch up; what is answered is kept.", answer=BATCH, errors=(507,), parameters=(ID,))
    return [
        Operation("POST", "/v1/batches", create, new),
        Operation("GET", "/v1/batches", every, listed),
        Operation("GET", "/v1/batches/{id}", one, told("Tells of a batch.", answer=BATCH, parameters=(ID,))),
        Operation("POST", "/v1/batches/{id}/cancel", cancel, ended),
    ]


async def _written(change: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What a change that is kept on the disk returns.

    Raises:
      BodyError: there is no room on the disk.
    """
    try:
        return await asyncio.to_thread(change, *arguments)
    except OSError as error:
        raise no_room(error) from error


def _shown(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record.get(name) for name in _SHOWN}
