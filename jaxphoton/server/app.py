"""The application: all routes, the layers around them, and every error in the one form that clients read."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp

from jaxphoton.bodies.faults import BodyError, Fault
from jaxphoton.image.errors import ImageError
from jaxphoton.messages import quoted
from jaxphoton.requests.errors import EngineError
from jaxphoton.server import batches, chat, files, health, models, openapi, page, skills
from jaxphoton.server.access import Browsers, Keys
from jaxphoton.server.batching import Batches
from jaxphoton.server.failures import Failures, error_response, surprise
from jaxphoton.server.limits import Limits
from jaxphoton.server.meter import LEFT, Meter
from jaxphoton.server.operation import Operation
from jaxphoton.server.options import ServerOptions
from jaxphoton.server.paths import Paths
from jaxphoton.server.service import Service

DEFAULTS = ServerOptions()


def application(service: Service, options: ServerOptions = DEFAULTS, stored: Batches | None = None) -> ASGIApp:
    """All routes to one model, and to files and batches where these are kept.

    From the outside in: what counts bytes, requests and failures, then who may ask.
    """
    operations = all_operations(service, options, stored)
    routed = Starlette(
        routes=operations,
        exception_handlers={HTTPException: _http, ClientDisconnect: _left, Exception: surprise}
        | dict.fromkeys((BodyError, ImageError, EngineError), surprise),
    )
    routed.router.redirect_slashes = False  # clients follow no redirect, or lose the body
    app: ASGIApp = routed
    if options.keys:
        app = Keys(app, options.keys, operations)
    app = Failures(Paths(Browsers(app, options.hosts, options.origins)))
    if options.origins:
        app = CORSMiddleware(
            app,
            allow_origins=options.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["Retry-After"],
        )
    return Limits(Meter(app, service.metrics, options.access_log), options)


def all_operations(service: Service, options: ServerOptions, stored: Batches | None = None) -> list[Operation]:
    """Every route there is."""
    operations = [
        *skills.routes(service),
        *chat.routes(service),
        *models.routes(service),
        *(() if stored is None else (*files.routes(stored), *batches.routes(stored))),
        *health.routes(service),
        *page.routes(options.max_body),
    ]
    return operations + openapi.routes(operations, bool(options.keys))


async def _http(request: Request, error: HTTPException) -> Response:
    path = quoted(request.scope["path"])  # not `url`, which has what the client says is our name
    message = {404: f"there is no {path}", 405: f"{path} takes no {request.method[:20]}"}
    told = message.get(error.status_code, error.detail)
    return error_response(Fault(error.status_code, told, headers=error.headers or {}))


async def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=LEFT)  # nobody reads it
