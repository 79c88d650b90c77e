"""A parent's side of one child process: starting it, talking to it, noticing that it hangs, its end."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from jaxphoton.processes.frames import Message, pack, read_frame, send
from jaxphoton.processes.pipe import Pipe, WaitLimit, step_of

Log = Callable[[str], None]

# Until it greets: a cold disk and a busy machine included.
START_S = 120.0
# Its last words: nobody else holds its stderr for long.
LAST_WORDS_S = 2.0


class Child:
    """A running child program.

    Attributes:
      pid: its process id.
      end_s: for how long `stop` waits for its end: a driver or a disk in trouble can hold a killed process for ever.
    """

    end_s = 2.0

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        limit: float,
        fault: str = "took longer than {:g} s",
        *,
        log: Log | None = None,
        group: bool = False,
        inherited: Sequence[int] = (),
    ):
        """Starts the program, without waiting for it.

        Args:
          command: what Python is to run.
          environment: see `child_environment`.
          limit: seconds for which it may be silent while something is expected of it; counts once it has greeted.
          fault: how to say that it was silent for longer.
          log: takes each line it prints; by default it prints where this process does.
          group: it leads a group of processes and a session of its own: no terminal's signals reach it, and its
            children end with it.
          inherited: descriptors that it shares.
        """
        self._limit, self._group, self._killed = limit, group, False
        self._process = subprocess.Popen(
            # -P: the folder we are in is not searched for modules.
            [sys.executable, "-P", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if log is None else subprocess.PIPE,
            bufsize=0,
            env=environment,
            pass_fds=inherited,
            start_new_session=group,
        )
        assert self._process.stdin and self._process.stdout
        step = step_of(limit)
        self._silence = WaitLimit(START_S, step, fault)
        # Whoever writes waits only as long as whoever reads, and kills what hangs.
        self._orders = Pipe(self._process.stdin, step, self._check_alive)
        self._replies = Pipe(self._process.stdout, step, self._check)
        self._expected: Callable[[], object] = lambda: self
        self._at: object = self
        self.pid = self._process.pid
        self._printer: threading.Thread | None = None
        if log is not None:
            printed = io.BufferedReader(self._process.stderr)  # type: ignore[arg-type]
            self._printer = threading.Thread(target=_print, args=(printed, log), daemon=True)
            self._printer.start()

    def greet(self, settings: Message, greeting: bytes) -> None:
        """Sends the settings and waits for the greeting, a line; from here on `limit` counts.

        Raises:
          EOFError, OSError: it has died.
          TookTooLong: it is stopped, or hangs.
        """
        self.send(pack(settings))
        while not (line := self._replies.readline()).endswith(greeting):
            if not line:
                raise EOFError("it ended while it started")
        self._silence.limit = self._limit
        self._silence.restart()

    def expect(self, what: Callable[[], object]) -> None:
        """Where it is silent while it has nothing to do: `what` tells what it is at, None for nothing. Its time begins
        anew with each."""
        self._expected = what

    def send(self, frame: bytes, data: bytes | None = None) -> None:
        """Sends what `pack` made, from one thread."""
        send(self._orders, frame, data)

    def receive(self) -> Message:
        """The next message.

        Raises:
          EOFError, OSError, ValueError: it has died, or talks nonsense.
          TookTooLong: it is stopped, or hangs.
        """
        message = read_frame(self._replies)
        self._silence.restart()
        return message

    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """From any thread; a stopped process dies of it too."""
        self._killed = True
        if not self._group:
            self._process.kill()
        elif self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def stop(self) -> str:
        """Ends the process, reaps it and gives its resources back; how it ended, for messages."""
        self.kill()
        code = reap(self._process, self.end_s)
        if self._printer is not None:
            self._printer.join(LAST_WORDS_S)
        for stream in (self._orders, self._replies):
            with contextlib.suppress(OSError):  # what was not sent yet
                stream.close()
        if code is None:
            return "killed, but a disk or a driver does not let it go"
        return f"exit status {code}" if code >= 0 else f"killed by {_signal_name(-code)}"

    def _check(self) -> None:
        self._check_alive()
        at = self._expected()
        if at is None or at is not self._at:
            self._at = at
            self._silence.restart()
        else:
            self._silence.check()

    def _check_alive(self) -> None:
        if self._killed:  # its pipes stay open while a disk or a driver holds it
            raise EOFError("it was killed")


def child_environment() -> dict[str, str]:
    """Variables with which a child finds the modules that this process finds, whether they are installed or not."""
    folders = [os.path.abspath(folder) for folder in sys.path if isinstance(folder, str)]
    folders.append(str(Path(__file__).parents[2]))
    return os.environ | {"PYTHONPATH": os.pathsep.join(folders)}


def reap(process: subprocess.Popen, seconds: float) -> int | None:
    """The exit code of a process that was killed. None where a disk or a driver holds it for longer: then a thread
    waits for it, and nobody else."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        threading.Thread(target=process.wait, name="jaxphoton-reaper", daemon=True).start()
        return None


def _print(stream: IO[bytes], log: Log) -> None:
    with stream:
        for line in stream:
            with contextlib.suppress(Exception):  # a closed stderr stops nothing, and its writer must not wait for us
                log(line.decode(errors="replace").rstrip())


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
