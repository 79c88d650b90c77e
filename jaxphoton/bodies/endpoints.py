"""The paths under which something is asked: for bodies that come without a connection, in a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from jaxphoton.bodies import chat, skills
from jaxphoton.bodies.completion import Completion
from jaxphoton.bodies.faults import BodyError
from jaxphoton.bodies.pictures import ReadPicture
from jaxphoton.bodies.skills import Body
from jaxphoton.messages import quoted
from jaxphoton.requests.answer import Result
from jaxphoton.requests.skills import SKILLS


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a path means.

    Attributes:
      parsed: a body, of which pictures are read by the function given; raises BodyError.
      answer: a result as the body of the response, given the body that asked, the id of the request, and what the
        model is called.
    """

    parsed: Callable[[bytes, ReadPicture], Body]
    answer: Callable[[Any, Result, str, str], dict[str, Any]]


def _skill(name: str) -> Endpoint:
    return Endpoint(
        partial(skills.parsed, name), lambda _, result, request_id, model: skills.answer_of(result, request_id)
    )


ENDPOINTS: Mapping[str, Endpoint] = {f"/v1/{name}": _skill(name) for name in SKILLS} | {
    "/v1/chat/completions": Endpoint(
        chat.parsed, lambda body, result, request_id, model: Completion(body, model, request_id).whole(result)
    ),
}


def endpoint_of(url: str) -> Endpoint:
    """
    Raises:
      BodyError: there is no such path.
    """
    if url not in ENDPOINTS:
        raise BodyError(f"there is no {quoted(url)} here, but {', '.join(ENDPOINTS)}", "url", "invalid_url")
    return ENDPOINTS[url]
