"""One engine over several processes: the first decides what is launched, and all launch it in the same order.

Programs with sums over a mesh wait for one another, so every process must enqueue the same ones with the same arrays.
Each has its own shards of parameters and state; what only a host reads is whole on every device, the first's too.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxphoton.engine.buckets import Key
from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.launcher import Launcher
from jaxphoton.processes.connection import PeerError
from jaxphoton.processes.peers import Follower, Leader
from jaxphoton.processes.pipe import Message
from jaxphoton.requests.errors import EngineError, fault_of, forget_frames

AHEAD = 4  # launches that a follower has enqueued at most before it looks whether the oldest was one
GRACE_S = 5.0  # after an error of the device, until it is known that its cause is a process that is gone


class Leading(Launcher):
    """Launches in the first process, told to all the others before."""

    def __init__(self, programs: Programs, leader: Leader):
        self._leader = leader
        super().__init__(programs)

    def __call__(self, key: Key, *arrays: Any) -> Any:
        """
        Raises:
          PeerError: a process is lost.
        """
        self._leader.send(*packed(key, arrays))
        return super().__call__(key, *arrays)

    def reset(self) -> None:
        """There is no beginning again: the others may wait in a launch that this one has not made.

        Raises:
          PeerError: always; it names the process that is lost, if one is.
        """
        raise self._leader.wait_lost(GRACE_S) or PeerError("a launch failed in process 0, and all of them end")

    def close(self) -> None:
        """Ends the others, too."""
        super().close()
        self._leader.close()


def follow(make: Callable[[], Programs], follower: Follower) -> None:
    """Makes the programs and launches what the first process launches, until that one's engine has ended.

    Raises:
      EngineError: the first process is lost or has other settings, or a launch failed.
    """
    try:
        _repeat(make(), follower)
    except Exception as error:
        if follower.over:  # before it began
            return
        forget_frames(error)
        follower.close(f"has failed: {fault_of(error)}")
        raise EngineError(fault_of(error)) from error


def _repeat(programs: Programs, follower: Follower) -> None:
    launch, enqueued = Launcher(programs), deque[Any]()
    try:
        while (message := follower.receive()) is not None:
            key, arrays = unpacked(message)
            enqueued.append(launch(key, *arrays))
            if len(enqueued) > AHEAD:
                jax.block_until_ready(enqueued.popleft())
    finally:
        launch.close()
    follower.close()


def packed(key: Key, arrays: tuple[Any, ...]) -> tuple[Message, bytes]:
    """A launch as a message and its bytes."""
    hosts = [np.asarray(array) for array in arrays]
    told = [[array.dtype.name, array.shape] for array in hosts]
    return {"launch": key, "arrays": told}, b"".join(array.tobytes() for array in hosts)


def unpacked(message: Message) -> tuple[Key, list[np.ndarray]]:
    """The reverse of `packed`; the arrays are read-only."""
    data, start, arrays = message["bytes"], 0, []
    for name, shape in message["arrays"]:
        dtype, count = np.dtype(name), math.prod(shape)
        arrays.append(np.frombuffer(data, dtype, count, start).reshape(shape))
        start += count * dtype.itemsize
    return tuple(message["launch"]), arrays
