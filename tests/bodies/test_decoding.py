"""What is told of bodies that are not of their form."""

from __future__ import annotations

import pytest

pytest.importorskip("msgspec", reason="needs the extra `serve`")

from jaxphoton.bodies.chat import ChatForm
from jaxphoton.bodies.decoding import decoded
from jaxphoton.bodies.faults import BodyError
from jaxphoton.bodies.skills import body_type


@pytest.mark.parametrize(
    "kind, data, message, param",
    [
        (body_type("query"), b"{}", "question is missing", "question"),
        (ChatForm, b'{"messages": [{}]}', "messages[0].role is missing", "messages[0].role"),
        (
            body_type("caption"),
            b'{"image_url": "", "length": "huge"}',
            "length must be one of any, long, medium-length, normal, short, very-long, very-short, a whole number, "
            "not 'huge'",
            "length",
        ),
        (
            ChatForm,
            b'{"messages": [{"role": "user"}, {"role": "bot"}]}',
            "messages[1].role must be one of assistant, developer, system, user, not 'bot'",
            "messages[1].role",
        ),
        (
            ChatForm,
            b'{"messages": [], "response_format": {"type": "xml"}}',
            "response_format.type must be one of json_object, json_schema, text, not 'xml'",
            "response_format.type",
        ),
    ],
)
def test_the_part_is_named_and_what_it_may_be(kind, data, message, param):
    with pytest.raises(BodyError) as wrong:
        decoded(data, kind)
    assert (str(wrong.value), wrong.value.param) == (message, param)
