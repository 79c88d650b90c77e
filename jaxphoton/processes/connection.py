"""A TCP connection to a process of another machine, which notices its end.

Messages are those of `pipe`. A connection carries data alone; nothing on it is encrypted.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

from jaxphoton.processes.pipe import Message, Pipe, TookTooLong, WaitLimit, read_frame, write_frame

BEAT_S, SILENT_S = 5.0, 60.0
_END = "end"  # a key of the last message: None where all went well, else what did not


class PeerError(RuntimeError):
    """Another process is lost, or cannot work with this one."""


class PeerGone(PeerError):
    """It has ended, or is silent, without a word."""


class Connection:
    """To another process. Threads of its own read it and send signs of life.

    Args:
      who: the other process, for messages.
      take: called with each message, on the thread that reads.
      ended: called once on that thread, with None where the other side has ended in order, else with what is wrong.
    """

    def __init__(
        self, sock: socket.socket, who: str, take: Callable[[Message], Any], ended: Callable[[PeerError | None], Any]
    ):
        _keep_alive(sock)
        self._socket, self._who, self._take, self._ended = sock, who, take, ended
        self._silence = WaitLimit(SILENT_S, 1.0, "has given no sign of life for {:g} s")
        ends: Any = sock.makefile("rb", buffering=0), sock.makefile("wb", buffering=0)
        self._in, self._out = Pipe(ends[0], 1.0, self._silence.check), Pipe(ends[1], 1.0, self._check)
        self._lock, self._over = threading.Lock(), threading.Event()
        for loop in (self._read, self._beat):
            threading.Thread(target=loop, name="jaxphoton-peer", daemon=True).start()

    def send(self, message: Message, data: bytes | None = None) -> None:
        """From any thread; waits while the other side does not read.

        Raises:
          PeerError: it is gone.
        """
        try:
            with self._lock:
                self._check()
                write_frame(self._out, message, data)
        except OSError as error:
            raise PeerError(f"{self._who} is gone") from error

    def close(self, reason: str | None = None) -> None:
        """Says that this side ends, and why if that is a fault; again, or to one that is gone, nothing."""
        with contextlib.suppress(PeerError):
            self.send({_END: reason})
        self._over.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def _read(self) -> None:
        kind = PeerGone
        try:
            while True:
                message = read_frame(self._in)
                self._silence.restart()
                if _END in message:
                    kind, fault = PeerError, message[_END]
                    break
                if message:
                    self._take(message)
        except TookTooLong as late:
            fault = str(late)
        except (EOFError, OSError):
            fault = "is gone"
        except Exception as error:
            fault = f"talks nonsense: {type(error).__name__}: {error}"
        self._over.set()
        with self._lock:
            for end in (self._in, self._out, self._socket):
                end.close()
        self._ended(None if fault is None else kind(f"{self._who} {fault}"))

    def _beat(self) -> None:
        with contextlib.suppress(PeerError):
            while not self._over.wait(BEAT_S):
                self.send({})

    def _check(self) -> None:
        if self._over.is_set():
            raise PeerError(f"{self._who} is gone")


def _keep_alive(sock: socket.socket) -> None:
    """Small messages go at once, and the end of a machine that says nothing any more is noticed."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):  # not everywhere
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
