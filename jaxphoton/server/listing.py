"""Pages of lists, as OpenAI's clients turn them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request

from jaxphoton.bodies.faults import BodyError
from jaxphoton.server.operation import Parameter

MOST = 10_000


def parameters(most: int) -> tuple[Parameter, ...]:
    """Those that `page` reads."""
    return (
        Parameter("limit", {"type": "integer", "minimum": 1, "maximum": most}, description="objects of a page"),
        Parameter("after", {"type": "string"}, description="the last id of the page before"),
    )


def page(
    request: Request,
    records: Sequence[Mapping[str, Any]],
    shown: Callable[[Mapping[str, Any]], Any],
    most: int,
    usual: int,
) -> dict[str, Any]:
    """The page that a request asks for.

    Args:
      records: all, in their order.
      shown: how one stands in it.
      most, usual: objects of a page.

    Raises:
      BodyError: a limit that is none, or an id behind which nothing can begin.
    """
    text = request.query_params.get("limit")
    if text is not None and not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= most):
        raise BodyError(f"limit must be a whole number from 1 to {most}", "limit")
    limit = usual if text is None else int(text)
    begin = 0
    if (after := request.query_params.get("after")) is not None:
        places = {each["id"]: place for place, each in enumerate(records)}
        if after not in places:
            raise BodyError("after must be an id of this list", "after")
        begin = places[after] + 1
    data = [shown(each) for each in records[begin : begin + limit]]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": begin + limit < len(records),
    }
