"""An engine over several processes: what a follower launches, and what becomes of the first when one is lost. The
processes are threads here, with the same programs on one device; see tests/cli/test_processes.py for real ones."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import socket
import struct
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxphoton.config.mesh import MeshError
from jaxphoton.engine import engine as engine_module
from jaxphoton.engine import followers
from jaxphoton.engine.agreement import facts_of, require_all, require_same
from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.engine import Engine
from jaxphoton.engine.followers import follow, packed, unpacked
from jaxphoton.layers.mesh import Split
from jaxphoton.processes.connection import PeerError
from jaxphoton.processes.peers import Follower, Leader
from jaxphoton.requests.errors import EngineError
from tests.engine.blocking import PATIENCE
from tests.engine.schedules import schedule
from tests.engine.test_constraints import MIXED
from tests.engine.tiny import Loop, Schedule, at_once, request


@pytest.fixture
def leader():
    made = Leader("127.0.0.1", 2)
    yield made
    made.close()


class Recording(Programs):
    """Programs that keep what they return for the host to read."""

    def __init__(self, programs, peers):
        self.__dict__.update(programs.__dict__)
        self.peers, self.outputs = peers, []

    def __getitem__(self, key):
        run = super().__getitem__(key)

        def recorded(*arguments):
            results = run(*arguments)
            if key[0] in ("prefill", "step", "sample"):
                self.outputs.append((key, np.asarray(results[-1])))
            return results

        return recorded


def test_a_follower_launches_what_the_first_does(programs, leader):
    follower = Follower("127.0.0.1", leader.port, leader.token, 1, 2)
    leader.accept()
    leads, follows = Recording(programs, leader), Recording(programs, follower)
    thread = threading.Thread(target=follow, args=(lambda: follows, follower))
    thread.start()
    loop = Loop(leads)
    for number in range(3):
        loop.run(schedule(number))
    loop.run(Schedule(at_once(*MIXED)))
    loop.device.close()
    thread.join(PATIENCE)
    assert not thread.is_alive() and follower.over
    assert {key[0] for key, _ in leads.outputs} == {"prefill", "step", "sample"}
    for (mine, output), (theirs, other) in zip(leads.outputs, follows.outputs, strict=True):
        assert mine == theirs
        np.testing.assert_array_equal(output, other)


def test_a_launch_is_packed_and_unpacked():
    arrays = (
        np.arange(6, dtype=np.int32).reshape(2, 3),
        np.array(7, np.int32),
        np.zeros((0, 4), np.uint32),
        jnp.linspace(0, 1, 5, dtype=jnp.bfloat16),
        np.arange(24, dtype=np.uint8).reshape(2, 3, 4)[:, ::2],
    )
    message, data = packed(("adapter", 4), arrays)
    key, found = unpacked(message | {"bytes": data})
    assert key == ("adapter", 4)
    for array, other in zip(arrays, found, strict=True):
        assert other.dtype == array.dtype and other.shape == array.shape
        np.testing.assert_array_equal(np.asarray(array), other)


class Gathered(Leader):
    """Peers of which the other one has these facts."""

    processes = 2

    def __init__(self, theirs):
        self._theirs = theirs

    def gathered(self, mine):
        return [mine, self._theirs]


def test_processes_that_differ_are_told_in_what(programs):
    one = split((1, 1), "model", "expert")
    facts = facts_of({"jax": "1"}, programs.engine, one, programs.params)
    other = dataclasses.replace(programs.engine, max_rows=4)
    params = jax.tree.map(lambda leaf: leaf + jnp.ones((), leaf.dtype), programs.params)
    theirs = facts_of({"jax": "2"}, other, one, params)
    require_same(Gathered({**facts, "engine.vision": [[1, 4], [3, 9]], **_lists(facts)}), facts)
    with pytest.raises(PeerError) as caught:
        require_same(Gathered(_lists(theirs)), facts)
    said = str(caught.value)
    assert "process 1 has jax '2', process 0 '1'" in said and "engine.max_rows 4, process 0 8" in said
    assert "weights" in said and "engine.vision" not in said


def split(sizes, *axes, order=1, rules=None):
    """Over as many devices as these axes have, in the order of jax or against it."""
    devices = jax.devices()[: math.prod(sizes)][::order]
    return Split(jax.sharding.Mesh(np.array(devices).reshape(sizes), axes), {}, rules)


@pytest.mark.parametrize(
    ("theirs", "fault"),
    [
        (split((2, 2), "expert", "model"), "mesh"),
        (split((2, 2), "model", "expert", order=-1), "devices of the mesh"),
        (split((2, 2), "model", "expert", rules={"vocab": ()}), "mesh_rules"),
    ],
)
def test_meshes_that_differ_in_order_are_told_apart(programs, theirs, fault):
    """Such processes would each compute another share than the others think."""
    mine, theirs = (facts_of({}, programs.engine, each, ()) for each in (split((2, 2), "model", "expert"), theirs))
    require_same(Gathered(_lists(mine)), mine)
    with pytest.raises(PeerError, match=f"process 1 has {fault} "):
        require_same(Gathered(_lists(theirs)), mine)


def _lists(facts):
    """As they come from another process."""
    return json.loads(json.dumps(facts))


def test_processes_without_a_mesh_are_refused():
    with pytest.raises(MeshError, match="2 processes share a model over a mesh: give mesh"):
        require_all(None, Gathered(None))
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("model",))
    with pytest.raises(MeshError, match="the mesh has no device of process 1"):
        require_all(mesh, Gathered(None))
    require_all(mesh, None)


@pytest.fixture
def lost(programs, leader):
    """An engine that leads another process, and what ends that one."""
    sock = socket.create_connection(("127.0.0.1", leader.port))
    sock.sendall(leader.token + struct.pack(">I", 1))
    leader.accept()
    leading = copy.copy(programs)
    leading.peers = leader
    engine = Engine(leading)
    with sock:
        yield engine, sock
        engine.shutdown(wait=False)


LOST = "the engine has failed: process 1 of 2 .127.0.0.1. is gone"


def test_a_lost_process_ends_an_idle_engine(lost):
    engine, sock = lost
    sock.close()
    engine._thread.join(PATIENCE)
    assert not engine._thread.is_alive()
    with pytest.raises(EngineError, match=LOST):
        engine.submit(request())


def test_a_lost_process_ends_an_engine_that_waits_for_its_launch(lost, monkeypatch):
    """A sum over processes never ends without one of them: requests and `shutdown` do not wait for it."""
    monkeypatch.setattr(engine_module, "GRACE_S", 0.01)
    engine, sock = lost
    waiting, release, thread = threading.Event(), threading.Event(), engine._thread
    fetch = engine.pipeline.device.fetch

    def stuck(output):
        waiting.set()
        assert release.wait(PATIENCE)
        return fetch(output)

    monkeypatch.setattr(engine.pipeline.device, "fetch", stuck)
    under_way = engine.submit(request()), engine.submit(request(picture=1))
    assert waiting.wait(PATIENCE)
    sock.close()
    for submission in under_way:
        with pytest.raises(EngineError, match=LOST):
            submission.future.result(PATIENCE)
    engine.shutdown()
    assert thread.is_alive()
    release.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_failed_launch_names_the_process_whose_end_was_its_cause(lost, monkeypatch):
    engine, sock = lost
    monkeypatch.setattr(followers, "GRACE_S", PATIENCE)

    def broken(plan):
        sock.close()
        raise RuntimeError("Gloo: connection closed by peer")

    monkeypatch.setattr(engine.pipeline.device, "prefill", broken)
    with pytest.raises(EngineError, match=LOST):
        engine.submit(request()).future.result(PATIENCE)
