"""What surrounds several processes; tests/cli/test_processes.py has real ones."""

from __future__ import annotations

import signal

import pytest

from jaxphoton import Moondream, distributed
from jaxphoton.processes.connection import PeerError


def test_a_follower_leaves_the_first_signal_to_the_first_process():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with distributed.left_to_leader():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)
            assert signal.getsignal(number) is signal.SIG_DFL  # a second one ends the process
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


class Ends:
    """Peers, one of which may be lost."""

    def __init__(self, lost: PeerError | None):
        self.lost, self.said = lost, []

    def close(self, reason: str | None = None) -> None:
        self.said.append(reason)


def test_a_command_whose_others_are_lost_ends_at_once(monkeypatch):
    ended: list[int] = []
    monkeypatch.setattr(distributed.os, "_exit", ended.append)
    for peers, codes in ((Ends(None), []), (Ends(PeerError("process 1 is gone")), [1])):
        monkeypatch.setattr(distributed, "_peers", peers)
        distributed.leave(1)
        assert ended == codes
    monkeypatch.setattr(distributed, "_peers", orderly := Ends(None))
    distributed.leave(0)
    distributed.leave(2)
    assert orderly.said == [None, "has ended with exit code 2"] and len(ended) == 1


def test_a_process_that_has_joined_none_follows_none():
    assert distributed.peers() is None
    with pytest.raises(RuntimeError, match="this process follows none"):
        Moondream.follow(object.__new__(Moondream))
