"""Messages and the bytes behind them arrive as they were sent."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.processes.frames import read_frame, write_frame

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=9,
)
MESSAGES = st.dictionaries(st.text().filter(lambda key: key != "bytes"), VALUES)


@given(st.lists(st.tuples(MESSAGES, st.none() | st.binary())))
def test_all_arrive_in_order(messages):
    stream = io.BytesIO()
    for message, data in messages:
        write_frame(stream, message, data)
    stream.seek(0)
    for message, data in messages:
        assert read_frame(stream) == (message if data is None else message | {"bytes": data})
    with pytest.raises(EOFError):
        read_frame(stream)


@given(MESSAGES, st.binary(), st.data())
def test_a_part_is_no_message(message, data, drawn):
    stream = io.BytesIO()
    write_frame(stream, message, data)
    whole = stream.getvalue()
    with pytest.raises(EOFError):
        read_frame(io.BytesIO(whole[: drawn.draw(st.integers(0, len(whole) - 1))]))


def test_what_json_has_not_is_refused_before_it_is_sent():
    with pytest.raises(TypeError):
        write_frame(io.BytesIO(), {"image": object()})
