"""Errors as clients read them: {"error": {"message", "type", "param", "code"}} and a status of HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxphoton.constraints.protocol import ConstraintError
from jaxphoton.image.errors import ImageError
from jaxphoton.requests.errors import (
    DeadlineExceeded,
    EngineError,
    ModelClosed,
    NotFinite,
    QueueFull,
    UnknownAdapter,
    UnusableAdapter,
)

TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 504: "timeout_error"}


class BodyError(ValueError):
    """A request that cannot be answered as it was sent; its message is for whoever sent it.

    Attributes:
      param: the part of the body that is wrong, such as "settings.seed"; None for all of it.
      code: for programs; None where the message says all.
      status: of HTTP.
      headers: of the response.
    """

    def __init__(
        self,
        message: str,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.param, self.code, self.status, self.headers = param, code, status, headers or {}


@dataclass(frozen=True, slots=True)
class Fault:
    """An error on its way to a client.

    Attributes:
      status: of HTTP.
      message: for people.
      param, code: as in `BodyError`.
      headers: of the response.
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def fault_of(error: BaseException) -> Fault:
    """What a client is told of an error; of surprises nothing but that there was one."""
    match error:
        case BodyError():
            return Fault(error.status, str(error), error.param, error.code, error.headers)
        case ImageError():
            return Fault(400, f"the image: {error.fault}", "image_url", error.reason)
        case UnknownAdapter():
            return Fault(404, str(error), "settings.adapter", "model_not_found")
        case UnusableAdapter():  # its message has paths
            return Fault(500, "this adapter cannot be used; the server's log says more", code="adapter_unusable")
        case NotFinite():  # nor would it be another time
            return Fault(500, str(error), code="not_finite", headers={"X-Should-Retry": "false"})
        case QueueFull():
            return Fault(429, str(error), code="queue_full", headers={"Retry-After": "1"})
        case DeadlineExceeded():
            return Fault(504, str(error), code="deadline_exceeded", headers={"X-Should-Retry": "false"})
        case ConstraintError():  # no client shall try again what has no answer
            return Fault(400, str(error), code="restriction_not_met")
        case ModelClosed():
            return Fault(503, "the server is stopping", code="stopping")
        case EngineError():
            return Fault(503, str(error), code="engine_failed")
    return Fault(500, "a fault of the server; its log says more", code="internal_error")
