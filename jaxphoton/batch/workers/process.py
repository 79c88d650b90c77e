"""The run's side of one engine process: starting it, its streams, its end."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from jaxphoton.batch.workers.assignments import Assignment
from jaxphoton.batch.workers.child import GREETING
from jaxphoton.batch.workers.protocol import error_of
from jaxphoton.processes.frames import Message, pack, read_frame, send
from jaxphoton.processes.pipe import Pipe, WaitLimit, reap, step_of

Log = Callable[[str], None]

# Until it greets, before it loads anything: a cold disk and a busy machine included.
START_S = 120.0
# A driver in trouble can hold a killed process for ever.
_END_S = 60.0
# Its last words: nobody else holds its stderr for long.
_LAST_WORDS_S = 2.0
_SILENT = "no sign of life for {:g} s"


class Refused(Exception):
    """A process says why it cannot start: its only argument is the exception."""


class EngineProcess:
    """A running engine process, the leader of a group of processes and of a session: no terminal's signals reach it.

    Attributes:
      pid: its process id.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Log, silence: float):
        """Starts the program, without waiting for it.

        Args:
          command: what Python is to run.
          log: takes each line it prints.
          silence: seconds without a sign of life after which it hangs.
        """
        self._silence, self._killed = silence, False
        self._process = subprocess.Popen(
            # -P: the folder we are in is not searched for modules.
            [sys.executable, "-P", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment,
            start_new_session=True,
        )
        assert self._process.stdin and self._process.stdout and self._process.stderr
        step = step_of(silence)
        self._wait_limit = WaitLimit(START_S, step, _SILENT)
        # Whoever writes waits only as long as whoever reads.
        self._jobs = Pipe(self._process.stdin, step, self._check_alive)
        self._answers = Pipe(self._process.stdout, step, self._check)
        self.pid = self._process.pid
        printed = io.BufferedReader(self._process.stderr)  # type: ignore[arg-type]
        self._printer = threading.Thread(target=_print, args=(printed, log), daemon=True)
        self._printer.start()

    def greet(self, settings: Message) -> tuple[int, float]:
        """Sends the settings and waits until it is ready: the number of jobs it takes at once, and the seconds for
        which it compiled.

        Raises:
          Refused: it cannot start.
          EOFError, OSError, ValueError: it has died, or talks nonsense.
          TookTooLong: it is stopped, or hangs.
        """
        send(self._jobs, pack(settings))
        while not (line := self._answers.readline()).endswith(GREETING):
            if not line:
                raise EOFError("it ended while it started")
        self._wait_limit = WaitLimit(self._silence, self._wait_limit.step, _SILENT)
        while "room" not in (reply := self.receive()):
            if "refused" in reply:
                raise Refused(error_of(reply["refused"]))
        return reply["room"], reply["compiling"]

    def send(self, task: Assignment) -> None:
        send(self._jobs, task.frame, task.data)

    def receive(self) -> Message:
        """The next answer or sign of life; raises as `greet`."""
        message = read_frame(self._answers)
        self._wait_limit.restart()
        return message

    def kill(self) -> None:
        """Ends it and its image workers; from any thread. Stopped ones die of it too."""
        self._killed = True
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def stop(self) -> str:
        """Ends the process, reaps it and gives its resources back; how it ended, for messages."""
        self.kill()
        code = reap(self._process, _END_S)
        self._printer.join(_LAST_WORDS_S)
        for stream in (self._jobs, self._answers):
            with contextlib.suppress(OSError):  # what was not sent yet
                stream.close()
        if code is None:
            return "killed, but its device does not let it go"
        return f"exit status {code}" if code >= 0 else f"signal {-code}, {signal.strsignal(-code)}"

    def _check(self) -> None:
        self._check_alive()
        self._wait_limit.check()

    def _check_alive(self) -> None:
        if self._killed:  # its pipes stay open while a driver or a disk holds it
            raise EOFError("it was killed")


def _print(stream: IO[bytes], log: Log) -> None:
    with stream:
        for line in stream:
            log(line.decode(errors="replace").rstrip())
