"""The paths under which something is asked."""

from __future__ import annotations

import pytest

pytest.importorskip("msgspec", reason="needs the extra `serve`")

from jaxphoton.batch.workers.protocol import error_fields, error_of
from jaxphoton.bodies.endpoints import ENDPOINTS, endpoint_of
from jaxphoton.bodies.faults import BodyError, fault_of
from jaxphoton.bodies.pictures import Address, picture_of
from jaxphoton.constraints.protocol import ConstraintError
from jaxphoton.requests.answer import Result


def test_a_skill_is_asked_and_answers_in_its_own_form():
    body = endpoint_of("/v1/detect").parsed(b'{"image_url": "data:image/png;base64,AAAA", "object": "cat"}', picture_of)
    assert (body.picture, body.ask.skill, body.ask.arguments) == (b"\0\0\0", "detect", {"object": "cat"})
    result = Result({"objects": []})
    answer = endpoint_of("/v1/detect").answer(body, result, "r1", "m")
    assert answer["objects"] == [] and answer["request_id"] == "r1"


def test_who_reads_bodies_says_what_a_picture_is():
    seen = []

    def read(text, param):
        seen.append((text, param))
        return Address("somewhere")

    body = endpoint_of("/v1/caption").parsed(b'{"image_url": "a.jpg"}', read)
    assert body.picture == Address("somewhere") and seen == [("a.jpg", "image_url")]


@pytest.mark.parametrize("text", ["-_8=", "-_8", "+/8=", "%2B%2F8%3D", "+/\r\n8= "])
def test_base64_may_be_written_in_many_ways(text):
    assert picture_of(f"data:image/png;base64,{text}") == b"\xfb\xff"


def test_an_answer_that_its_schema_lets_not_go_on_is_not_asked_for_again():
    error = error_of(error_fields(ConstraintError("only used keys are left")))  # from an engine process
    fault = fault_of(error)
    assert (fault.status, fault.code, fault.message) == (400, "restriction_not_met", "only used keys are left")


def test_another_path_is_refused_and_told_what_there_is():
    with pytest.raises(BodyError, match="/v1/caption") as caught:
        endpoint_of("/v1/embeddings")
    assert caught.value.param == "url" and "/v1/embeddings" not in ENDPOINTS
