"""One model over the devices of several processes, on one machine or many.

Every process calls `start` and loads the same model over the same mesh. The first then asks it as ever; the others call
`Model.follow`, which returns when the first has closed the model.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxphoton.messages import first_line
from jaxphoton.processes.connection import PeerError
from jaxphoton.processes.peers import Follower, Leader, Peers
from jaxphoton.requests.errors import EngineStartError

_ADDRESS_BYTES = 512
_peers: Peers | None = None


def start(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Joins this process to the others, before the first use of a device; waits for all of them.

    Args:
      coordinator: "HOST:PORT" on the machine of process 0, the same in all. Its port must be free; another is chosen
        for what the first tells the others.
      processes: how many there are.
      process: the number of this one, from 0.

    What is None is taken from the variables of Slurm, Open MPI or Kubernetes (`jax.distributed.initialize`).

    Raises:
      EngineStartError: they do not come together.
      RuntimeError: this was called before.
    """
    global _peers
    if _peers is not None:
        raise RuntimeError("this process has joined the others already")
    try:
        if not jax.distributed.is_initialized():
            # It would take SIGTERM for itself.
            jax.config.update("jax_enable_preemption_service", False)
            jax.config.update("jax_cpu_collectives_implementation", "gloo")
            # On a CPU, programs of which none waits for the other would meet in each other's sums.
            jax.config.update("jax_cpu_enable_async_dispatch", False)
            jax.distributed.initialize(coordinator, processes, process)
        host = socket.gethostname() if coordinator is None else coordinator.rpartition(":")[0].strip("[]")
        _peers = _joined(host)
    except (RuntimeError, ValueError) as error:
        raise EngineStartError(f"the processes do not come together: {first_line(error)}") from error
    atexit.register(_peers.close)  # before jax waits for all to end


def peers() -> Peers | None:
    """The connections to the other processes; None before `start`."""
    return _peers


def leave(code: int) -> None:
    """Before a command ends with an exit code: where another process is lost, ends this one at once.

    Python would wait for a thread in a launch that never ends, and jax for the processes that are gone.
    """
    if _peers is None:
        return
    if _peers.lost is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    _peers.close(None if code == 0 else f"has ended with exit code {code}")


@contextmanager
def left_to_leader() -> Iterator[None]:
    """In a command that follows: what process 0 is told to do about SIGINT and SIGTERM is its own matter, and those
    reach all processes of a terminal or a job. A second one ends this process."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}

    def once(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_DFL)

    for each in before:
        signal.signal(each, once)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _joined(host: str) -> Peers:
    number, count = jax.process_index(), jax.process_count()
    leader = Leader(host, count) if number == 0 else None
    told = {} if leader is None else {"host": host, "port": leader.port, "token": leader.token.hex()}
    data = np.frombuffer(json.dumps(told).encode().ljust(_ADDRESS_BYTES), np.uint8)
    told = json.loads(np.asarray(multihost_utils.broadcast_one_to_all(data)).tobytes())
    if leader is not None:
        leader.accept()
        return leader
    return Follower(told["host"], told["port"], bytes.fromhex(told["token"]), number, count, _give_up)


def _give_up(error: PeerError) -> None:
    """Of a follower that waits in a launch for the first process, which is lost."""
    print(f"jaxphoton: {error}", file=sys.stderr, flush=True)
    os._exit(1)
