"""The outermost layer: whatever fails inside becomes an error that clients read, or a connection that is reset."""

from __future__ import annotations

import logging
import traceback

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jaxphoton.bodies.faults import Fault, fault_of
from jaxphoton.server.connection import RESET

_log = logging.getLogger(__name__)


def error_response(fault: Fault) -> Response:
    return Response(msgspec.json.encode(fault.body), fault.status, dict(fault.headers), "application/json")


class Failures:
    """Answers for what the layers inside raise, and for nothing else."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started = complete = False

        async def sent(message: Message) -> None:
            nonlocal started, complete
            started = True
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except Exception as error:
            if complete or isinstance(error, ClientDisconnect):
                return
            fault = logged(scope, error.__cause__ if started and error.__cause__ else error)
            if started:
                reset(scope)
            else:
                await error_response(fault)(scope, receive, send)
        except BaseException:
            if started and not complete:
                reset(scope)
            raise


def reset(scope: Scope) -> None:
    """Ends the connection of a request whose answer has begun, so that no client takes it for complete."""
    if (function := scope.get("extensions", {}).get(RESET)) is not None:
        function()


def logged(scope: Scope, error: BaseException) -> Fault:
    """What a client is told of an error; a surprise goes to the log, with its kind and where it was. Not its message:
    that may have in it what was sent."""
    fault = fault_of(error)
    if fault.status == 500:
        frames = "".join(traceback.format_tb(error.__traceback__)).rstrip()
        _log.error("%s failed: %s\n%s", _where(scope), type(error).__name__, frames)
    elif fault.status == 503:
        _log.warning("%s: %s", _where(scope), fault.message)
    return fault


def _where(scope: Scope) -> str:
    return f"{scope['method']} {getattr(scope.get('route'), 'path', 'a path')}"


async def surprise(request: Request, error: Exception) -> Response:
    """A handler of errors that nobody expects."""
    return error_response(logged(request.scope, error))
