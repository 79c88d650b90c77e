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
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from jaxphoton.processes.pipe import Message, Pipe, WaitLimit, read_frame, step_of, write_frame

Log = Callable[[str], None]

# Until it greets: a cold disk and a busy machine included.
START_S = 120.0
# Its last words: nobody else holds its stderr for long.
LAST_WORDS_S = 2.0
_SIGNALS = {number.value: number.name for number in signal.Signals}


class Refused(Exception):
    """A child says why it cannot start; its argument is what it has said."""


@dataclass(frozen=True, slots=True)
class Program:
    """What a child runs.

    Attributes:
      command: of Python.
      environment: see `child_environment`.
      greeting: the line with which its messages begin: a site's start-up files may have printed before.
      settings: the first message to it.
      limit: seconds, once it has greeted, for which it may be silent.
      fault: how to say that it was silent for longer.
      beats: it gives signs of life; one that does not may be silent while it has nothing to do.
      end_s: seconds to wait for its end: a driver or a disk in trouble can hold a killed process for ever.
      log: takes each line it prints; by default it prints where this process does.
      group: it leads a group of processes and a session of its own: no terminal's signals reach it, and its children
        end with it.
      inherited: descriptors that it shares.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    greeting: bytes
    settings: Message
    limit: float
    fault: str = "took longer than {:g} s"
    beats: bool = False
    end_s: float = 2.0
    log: Log | None = None
    group: bool = False
    inherited: Sequence[int] = ()


class Child:
    """A running child program.

    Attributes:
      pid: its process id.
      doing: tells what a child that does not beat is at, None for nothing; its limit begins anew with each.
    """

    def __init__(self, program: Program):
        """Starts the program, without waiting for it."""
        self._program, self._killed = program, False
        self._process = subprocess.Popen(
            # -P: the folder we are in is not searched for modules.
            [sys.executable, "-P", *program.command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if program.log is None else subprocess.PIPE,
            bufsize=0,
            env=program.environment,
            pass_fds=program.inherited,
            start_new_session=program.group,
        )
        assert self._process.stdin and self._process.stdout
        step = step_of(program.limit)
        self._silence = WaitLimit(START_S, step, program.fault)
        # Whoever writes waits only as long as whoever reads, and kills what hangs.
        self._orders = Pipe(self._process.stdin, step, self._check_alive)
        self._replies = Pipe(self._process.stdout, step, self._check)
        self.doing: Callable[[], object] = lambda: self
        self._did: object = self
        self.pid = self._process.pid
        self._printer: threading.Thread | None = None
        if program.log is not None:
            printed = io.BufferedReader(self._process.stderr)  # type: ignore[arg-type]
            self._printer = threading.Thread(target=_print, args=(printed, program.log), daemon=True)
            self._printer.start()

    def greet(self) -> Message:
        """Sends the settings and waits until it is ready: the message in which it says how much "room" it has.

        Raises:
          Refused: it cannot start.
          EOFError, OSError, ValueError: it has died, or talks nonsense.
          TookTooLong: it is stopped, or hangs.
        """
        self.send(self._program.settings)
        while not (line := self._replies.readline()).endswith(self._program.greeting):
            if not line:
                raise EOFError("it ended while it started")
        self._silence.limit = self._program.limit
        while "room" not in (reply := self.receive()):
            if "refused" in reply:
                raise Refused(reply["refused"])
        return reply

    def send(self, message: Message, data: bytes | None = None) -> None:
        """From one thread."""
        write_frame(self._orders, message, data)

    def receive(self) -> Message:
        """The next message; raises as `greet`."""
        message = read_frame(self._replies)
        self._silence.restart()
        return message

    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """From any thread; a stopped process dies of it too."""
        self._killed = True
        if not self._program.group:
            self._process.kill()
        elif self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def stop(self) -> str:
        """Ends the process, reaps it and gives its resources back; how it ended, for messages."""
        self.kill()
        code = reap(self._process, self._program.end_s)
        if self._printer is not None:
            self._printer.join(LAST_WORDS_S)
        for stream in (self._orders, self._replies):
            with contextlib.suppress(OSError):  # what was not sent yet
                stream.close()
        if code is None:
            return "killed, but a disk or a driver does not let it go"
        return f"exit status {code}" if code >= 0 else f"killed by {_SIGNALS.get(-code, f'signal {-code}')}"

    def _check(self) -> None:
        self._check_alive()
        doing = self.doing()
        if doing is None or doing is not self._did:
            self._did = doing
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
