"""Several processes that work as one: they hear the same in the same order, agree, and notice whoever is gone."""

from __future__ import annotations

import os
import socket
import struct
import threading
from contextlib import ExitStack, suppress

import pytest

from jaxphoton.processes import connection
from jaxphoton.processes.connection import PeerError
from jaxphoton.processes.peers import Follower, Leader

PATIENCE = 60.0  # seconds after which a test fails; none waits so long


@pytest.fixture
def leader():
    made = Leader("127.0.0.1", 3)
    yield made
    made.close()


@pytest.fixture
def raw(leader):
    """Makes a process that says who it is, and nothing more."""
    with ExitStack() as stack:

        def connect(number: int) -> socket.socket:
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", leader.port)))
            sock.sendall(leader.token + struct.pack(">I", number))
            return sock

        yield connect


def joined(leader: Leader, **options) -> list[Follower]:
    followers = [Follower("127.0.0.1", leader.port, leader.token, number, 3, **options) for number in (2, 1)]
    leader.accept()
    return followers[::-1]


def test_all_hear_the_same_in_order_up_to_the_end(leader):
    followers = joined(leader)
    sent = [({"number": i}, os.urandom(7 * i**3) or None) for i in range(40)]
    for message, data in sent:
        leader.send(message, data)
    leader.close()
    for follower in followers:
        for message, data in sent:
            expected = message if data is None else message | {"bytes": data}
            assert follower.receive() == expected
        assert follower.receive() is None and follower.over and follower.lost is None
    assert leader.lost is None


def test_values_are_gathered_in_the_order_of_the_processes(leader):
    found, followers = {}, joined(leader)

    def work(follower: Follower) -> None:
        found[follower.number] = [follower.gathered([follower.number, turn]) for turn in range(5)]

    threads = [threading.Thread(target=work, args=(follower,)) for follower in followers]
    for thread in threads:
        thread.start()
    mine = [leader.gathered([0, turn]) for turn in range(5)]
    for thread in threads:
        thread.join(PATIENCE)
    assert mine == found[1] == found[2] == [[[number, turn] for number in range(3)] for turn in range(5)]


@pytest.mark.parametrize("greeting", [b"", b"GET / HTTP/1.1\r\n\r\n", bytes(36), bytes(40)])
def test_a_stranger_is_turned_away_and_the_others_get_in(leader, greeting):
    with socket.create_connection(("127.0.0.1", leader.port)) as stranger:
        stranger.sendall(greeting)
        stranger.shutdown(socket.SHUT_WR)
        joined(leader)
        leader.send({"secret": 1})
        with suppress(ConnectionResetError):
            assert stranger.recv(100) == b""


def test_whoever_has_not_come_is_named(leader, raw):
    raw(2)
    with pytest.raises(PeerError, match="not connected after .* s: process 1$"):
        leader.accept(seconds=0.5)


def test_the_first_notices_at_once_who_is_gone(leader, raw):
    gone, lost, told = raw(1), [], threading.Event()
    raw(2)
    leader.accept()
    leader.watch(lambda error: (lost.append(str(error)), told.set()))
    gone.close()
    assert told.wait(PATIENCE)
    assert lost == ["process 1 of 3 (127.0.0.1) is gone"] == [str(leader.lost)]
    for talk in (lambda: leader.send({}), lambda: leader.gathered(0)):
        with pytest.raises(PeerError, match="process 1 of 3"):
            talk()


def test_a_process_that_gives_no_sign_of_life_is_lost(leader, raw, monkeypatch):
    monkeypatch.setattr(connection, "SILENT_S", 0.001)
    raw(1), raw(2)
    leader.accept()
    assert "has given no sign of life for 0.001 s" in str(leader.wait_lost(PATIENCE))


def test_a_follower_says_why_it_ends(leader):
    joined(leader)[1].close("has failed: RESOURCE_EXHAUSTED")
    assert str(leader.wait_lost(PATIENCE)) == "process 2 of 3 (127.0.0.1) has failed: RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("way", ["killed", "failed"])
def test_a_follower_notices_the_end_of_the_first_even_while_it_cannot_look(leader, way):
    stuck, given_up = [], threading.Event()
    seconds = 0.01 if way == "failed" else PATIENCE  # who has said why leaves time to say more
    follower, _ = joined(leader, stuck=lambda error: (stuck.append(str(error)), given_up.set()), seconds=seconds)
    fault = "is gone" if way == "killed" else "has ended with exit code 1"
    if way == "failed":
        leader.close(fault)
    else:
        for each in leader._followers.values():
            each._socket.shutdown(socket.SHUT_RDWR)  # as the end of its process does
    assert given_up.wait(PATIENCE) and set(stuck) == {f"process 0 of 3 (127.0.0.1) {fault}"}  # both may have said it
    with pytest.raises(PeerError, match=fault):
        follower.receive()
    assert not follower.over and str(follower.lost) == stuck[0]
