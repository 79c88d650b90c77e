"""Messages of OpenAI's clients: what is taken, what is refused and how the fault is named."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.image.several import SeveralImages
from jaxphoton.requests.chatting import conversation
from jaxphoton.requests.conversation import PLACE, Turn, parted, turns_of

PIXEL = b"\x89PNG"
ADDRESS = f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"


def says(role: str, *parts: Any) -> dict[str, Any]:
    """A message of parts: texts, or pictures as they are put into mappings."""
    return {"role": role, "content": [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]}


def shows(picture: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": picture}}


def test_texts_are_joined_as_they_are_and_other_keys_passed_over():
    messages = [
        {"role": "system", "content": " Be\nbrief. "},
        says("user", "What ", " is", " it?\n"),
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": []},
        {"role": "user", "content": "And\tthat? ", "name": "Ann"},
    ]
    assert turns_of(messages) == turns_of(tuple(messages)) == (
        Turn("system", " Be\nbrief. "),
        Turn("user", "What  is it?\n"),
        Turn("assistant", ""),
        Turn("user", "And\tthat? "),
    )  # fmt: skip


@given(st.lists(st.one_of(st.none(), st.text(min_size=1, max_size=4)), max_size=8))
def test_the_parts_of_a_turn_keep_their_order(parts):
    turn = turns_of([says("user", *({"type": "image"} if part is None else part for part in parts), "?")])[0]
    assert Turn("user", turn.text, turn.pictures).parts == (*turn.pictures, turn.text)
    joined = "".join("\0" if part is None else part.replace("\0", "") for part in parts) + "?"
    assert "".join("\0" if part is PLACE else part.replace("\0", "") for part in turn.parts) == joined


@given(st.lists(st.tuples(st.sampled_from(("user", "assistant")), st.text(max_size=8)), max_size=6), st.text())
def test_messages_without_pictures_are_asked_as_they_were_given(turns, question):
    messages = [{"role": role, "content": text} for role, text in turns]
    messages.append({"role": "user", "content": question + "?"})
    assert parted(messages) == (messages, [])
    assert parted(parted(messages)[0]) == parted(messages)


@pytest.mark.parametrize(
    "part",
    [shows(PIXEL), {"type": "image_url", "image_url": PIXEL}, {"type": "image", "image": PIXEL}],
)
def test_a_picture_that_opens_a_conversation_is_taken_out_of_it(part):
    messages = [
        says("user", part, "What ", "is it?"),
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "What colour?"},
    ]
    texts, pictures = parted(messages)
    assert pictures == [PIXEL]
    assert texts[0] == {"role": "user", "content": "What is it?"} and texts[2] == messages[2]
    assert parted([says("user", part)]) == ([{"role": "user", "content": ""}], [PIXEL])
    system = {"role": "system", "content": "Short."}
    texts, pictures = parted([system, *messages])
    assert texts[:2] == [system, says("user", {"type": "image"}, "What is it?")] and pictures == [PIXEL]


def test_other_pictures_leave_their_places_in_the_messages():
    place = {"type": "image"}
    messages = [
        says("user", shows("a"), "What ", shows("b"), "are they?"),
        {"role": "assistant", "content": "Cats."},
        says("user", "And this?", shows("c")),
    ]
    told, pictures = parted(messages)
    assert pictures == ["a", "b", "c"]
    assert told == [says("user", place, "What ", place, "are they?"), messages[1], says("user", "And this?", place)]
    assert [turn.pictures for turn in turns_of(told)] == [(PLACE, PLACE), (), (PLACE,)]
    assert [turn.parts for turn in turns_of(told)] == [
        (PLACE, "What ", PLACE, "are they?"),
        ("Cats.",),
        ("And this?", PLACE),
    ]
    told, pictures = parted([says("user", "Hello"), says("user", shows("a"))])
    assert told == [{"role": "user", "content": "Hello"}, says("user", place)] and pictures == ["a"]
    told, pictures = parted([says("user", "What ", "is ", shows("a"), " this?")])
    assert told == [says("user", "What is ", place, " this?")] and pictures == ["a"]
    image, arguments, _ = conversation([says("user", shows(PIXEL), shows(PIXEL))], None, None)
    assert image == SeveralImages((PIXEL, PIXEL)) and arguments["messages"] == [says("user", place, place)]


@pytest.mark.parametrize(
    ("messages", "error", "fault"),
    [
        ("Who?", TypeError, "messages must be a list of messages, not str"),
        (None, TypeError, "messages must be a list of messages, not NoneType"),
        ({"role": "user", "content": "Who?"}, TypeError, "messages must be a list of messages, not dict"),
        ([], ValueError, "messages must not be empty"),
        (["Who?"], TypeError, "messages[0] must be a mapping with role and content, not str"),
        ([{"content": "Who?"}], ValueError, "messages[0]: role must be one of system, user, assistant, not None"),
        ([{"role": "tool"}], ValueError, "messages[0]: role must be one of system, user, assistant, not 'tool'"),
        ([{"role": ["user"]}], ValueError, "messages[0]: role must be one of"),
        ([says("user", "a"), says("system", "b")], ValueError, "messages[1]: a system message can only be the first"),
        ([says("user", "a"), says("assistant", "b")], ValueError, "messages[1]: the last message must be the user's"),
        ([says("system", "a")], ValueError, "messages[0]: the last message must be the user's"),
        ([says("user", " \n")], ValueError, "messages[0]: the last message has neither text nor picture"),
        ([says("user", "a"), says("user", "")], ValueError, "messages[1]: the last message has no text"),
        ([{"role": "user", "content": 3}], TypeError, "messages[0]: content must be a text or a list of parts"),
        ([{"role": "user", "content": ["a"]}], TypeError, "messages[0].content[0] must be a mapping with a type"),
        ([says("user", "a", {"type": "input_audio"})], ValueError, "messages[0].content[1]: type must be 'text', "),
        ([says("user", {"type": ["text"]})], ValueError, "messages[0].content[0]: type must be 'text', "),
        ([says("user", {"type": "text"})], TypeError, "messages[0].content[0]: text must be a string, not NoneType"),
        ([says("user", "a", {"type": "image_url"})], ValueError, "messages[0].content[1] has no picture"),
        ([says("user", shows(None))], ValueError, "messages[0].content[0] has no picture"),
        ([says("system", shows(PIXEL)), says("user", "a")], ValueError, "messages[0]: only the user's messages can"),
        (
            [says("user", "a"), says("assistant", shows(PIXEL)), says("user", "b")],
            ValueError,
            "messages[1]: only the user's messages can have pictures, not those of the role 'assistant'",
        ),
        ([says("user", "a"), says("user", "b", {"type": "image"})], ValueError, "messages[1]: a part of it has no"),
        ([says("user", *[shows(PIXEL)] * 9)] * 2, ValueError, "messages: 18 pictures; a conversation can have 16"),
    ],
)  # fmt: skip
def test_what_is_refused_names_the_turn(messages, error, fault):
    with pytest.raises(error, match=re.escape(fault)):
        parted(messages)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (ADDRESS, PIXEL),
        (ADDRESS.replace("data:", "DATA:"), PIXEL),
        ("data:,abc", b"abc"),
        (PIXEL, PIXEL),
        (Path("a"), Path("a")),
    ],
)
def test_a_text_is_a_data_address_and_anything_else_an_image_as_it_is(given, taken):
    picture = conversation([says("user", shows(given))], None, None)[0]
    assert (picture.read() if isinstance(given, str) else picture) == taken


@pytest.mark.parametrize(
    ("picture", "error", "fault"),
    [
        ("/etc/passwd", ValueError, "a picture that is a text must be a data address"),
        ("photo.png", ValueError, "a picture that is a text must be a data address"),
        ("file:///etc/passwd", ValueError, "a picture that is a text must be a data address"),
        ("http://example.com/a.png", ValueError, "a picture that is a text must be a data address"),
        ([PIXEL, PIXEL], TypeError, "a picture cannot be a list"),
    ],
)
@pytest.mark.parametrize("kind", ["image_url", "image"])
def test_no_text_names_a_file_or_an_address(kind, picture, error, fault):
    with pytest.raises(error, match=fault):
        conversation([says("user", {"type": kind, kind: picture}, "What?")], None, None)


def test_a_setting_of_reasoning_goes_before_the_argument():
    given = {"temperature": 0, "reasoning": False}
    _, arguments, settings = conversation([says("user", "Who?")], given, True)
    assert arguments["reasoning"] is False and settings == {"temperature": 0}
    assert given == {"temperature": 0, "reasoning": False}
    _, arguments, settings = conversation([says("user", "Who?")], None, True)
    assert arguments["reasoning"] is True and settings is None
