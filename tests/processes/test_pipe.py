"""Pipes to children carry everything, messages and the bytes behind them arrive as they were sent, and nobody
waits for a silent child for longer than agreed."""

from __future__ import annotations

import io
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.processes.pipe import Pipe, TookTooLong, WaitLimit, read_frame, step_of, write_frame


def ends(check=lambda: None) -> tuple[Pipe, Pipe]:
    """Both ends of a pipe."""
    read, write = os.pipe()
    return Pipe(os.fdopen(read, "rb", 0), 0.001, check), Pipe(os.fdopen(write, "wb", 0), 0.001, check)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.floats(0, 1e6), max_size=60), st.floats(0.5, 20))
def test_of_the_time_between_two_looks_at_most_a_step_counts(gaps, limit):
    clock, counted = Clock(), 0.0
    wait_limit = WaitLimit(limit, 0.5, clock=clock)
    for gap in gaps:
        before = clock.now
        clock.now += gap
        counted += min(0.5, clock.now - before)
        if counted >= limit:
            with pytest.raises(TookTooLong, match=f"^took longer than {limit:g} s$".replace("+", r"\+")):
                wait_limit.check()
            return
        wait_limit.check()
    wait_limit.restart()
    clock.now += 0.4
    wait_limit.check()


def test_a_night_asleep_is_no_time_to_wait():
    clock = Clock()
    wait_limit = WaitLimit(60, 1.0, clock=clock)
    for _ in range(10):
        clock.now += 8 * 3600
        wait_limit.check()


def test_all_bytes_pass_whatever_their_number():
    reader, writer = ends()
    data = os.urandom(3 << 20)
    threading.Thread(target=lambda: (writer.write(b"a line\n" + data + b"the rest"), writer.close())).start()
    assert reader.readline() == b"a line\n"
    assert reader.read(len(data)) == data
    assert reader.read(100) == b"the rest" and reader.read(1) == reader.readline() == b""
    reader.close()


@pytest.mark.parametrize("what", ["reading", "a line", "writing"])
def test_silence_is_looked_at_and_can_be_ended(what):
    looks = []

    def check():
        looks.append(None)
        if len(looks) == 5:
            raise TookTooLong

    reader, writer = ends(check)
    if what != "writing":
        writer.write(b"part")
    with pytest.raises(TookTooLong):
        {"reading": lambda: reader.read(5), "a line": reader.readline, "writing": lambda: writer.write(bytes(1 << 20))}[
            what
        ]()
    assert len(looks) == 5
    reader.close()
    with pytest.raises(BrokenPipeError):
        writer.write(b"more")
    writer.close()


@pytest.mark.parametrize("limit, step", [(0.8, 0.1), (8, 1.0), (60.0, 1.0), (float("inf"), 1.0), (10**400, 1.0)])
def test_looks_are_a_second_apart_at_most(limit, step):
    assert step_of(limit) == pytest.approx(step)


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
