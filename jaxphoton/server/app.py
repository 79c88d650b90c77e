"""The application: all routes, and every error in the one form that clients read."""

from __future__ import annotations

import logging

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from jaxphoton.bodies.faults import BodyError, Fault, fault_of
from jaxphoton.image.errors import ImageError
from jaxphoton.requests.errors import EngineError
from jaxphoton.server import chat, models, page, skills
from jaxphoton.server.service import Service

_log = logging.getLogger(__name__)


def application(service: Service) -> Starlette:
    """All routes to one model."""
    return Starlette(
        routes=[*skills.routes(service), *chat.routes(service), *models.routes(service), *page.routes(64 << 20)],
        exception_handlers={HTTPException: _http, ClientDisconnect: _left, Exception: _surprise}
        | dict.fromkeys((BodyError, ImageError, EngineError), _known),
    )


def error_response(fault: Fault) -> JSONResponse:
    return JSONResponse(fault.body, fault.status, dict(fault.headers))


async def _known(request: Request, error: Exception) -> Response:
    return error_response(fault_of(error))


async def _surprise(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return error_response(fault_of(error))


async def _http(request: Request, error: HTTPException) -> Response:
    message = {404: f"there is no {request.url.path}", 405: f"{request.url.path} takes no {request.method}"}
    return error_response(
        Fault(error.status_code, message.get(error.status_code, error.detail), headers=error.headers or {})
    )


async def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it
