"""One engine process after the other on one GPU: started, fed, listened to, and replaced when it dies or hangs."""

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

from jaxphoton.batch.board import Board, Hand, ReplicaError, Task
from jaxphoton.batch.replica import BEAT_S, GREETING
from jaxphoton.batch.wire import Message, error_of, pack, send, unpack_answer
from jaxphoton.image.pipe import Pipe, TookTooLong, WaitLimit, reap, step_of
from jaxphoton.image.worker import read_frame

Log = Callable[[str], None]

# A process that dies is replaced after 1, 2, 4 seconds; the fourth in a row that has answered nothing is the last.
PAUSE_S = 1.0
MOST_DEATHS = 4
# Until it greets, before it loads anything: a cold disk and a busy machine included.
START_S = 120.0
# With images and signs of life, but without a launch: its device hangs. The largest model on a CPU is faster.
STALL_S = 1800.0
# A driver in trouble can hold a killed process for ever.
_END_S = 60.0
# Its last words: nobody else holds its stderr for long.
_LAST_WORDS_S = 2.0
_SILENT = "no sign of life for {:g} s"


class Refused(Exception):
    """A process says why it cannot start: its only argument is the exception."""


class Replica:
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

    def send(self, task: Task) -> None:
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


class Lane(threading.Thread):
    """Keeps one process, and takes tasks from the board to it.

    Attributes:
      replica: the process; None while there is none.
      stages: seconds of the device so far, by stage, for each process there has been.
      compiling: seconds for which the latest that is ready compiled; 0 before.
    """

    def __init__(
        self,
        number: int,
        board: Board,
        command: Sequence[str],
        environment: Mapping[str, str],
        settings: Message,
        log: Log,
        silence: float,
    ):
        # A daemon: the interpreter joins others before it ends, and its end is what ends the process.
        super().__init__(name=f"jaxphoton-replica-{number}", daemon=True)
        self._number, self._board = number, board
        self._command, self._environment, self._settings, self._log = command, environment, settings, log
        self._silence = silence
        # A picture may be all it waits for, twice.
        self._stall = max(STALL_S, 3 * (settings["engine"].get("image_timeout") or 0))
        self.replica: Replica | None = None
        self.compiling = 0.0
        self.stages: list[Mapping[str, float]] = []

    def run(self) -> None:
        # Processes inherit the mask: what they ignore later does not end them while they start either.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        if self._number:
            self._board.wait_for_first()
        deaths = 0
        while not self._board.fault:
            hand, status = self._run_replica()
            if self._board.fault:
                return
            deaths = 1 if hand and hand.answers else deaths + 1
            left = self._board.take_back(hand, status)
            last = deaths == MOST_DEATHS
            self._print(
                f"{'hung' if hand and hand.hung else 'has died'} ({status}); "
                + ("given up" if last else "started again")
                + f", images to try again: {left}"
            )
            if last:
                self._board.retire(status)
                return
            self._board.pause(PAUSE_S * 2 ** (deaths - 1))

    def _run_replica(self) -> tuple[Hand | None, str]:
        """The life of one process: what it had, if it was ever ready, and how it ended."""
        hand: Hand | None = None
        try:
            self.replica = replica = Replica(self._command, self._environment, self._print, self._silence)
        except OSError as error:
            return None, str(error)
        listener, fault = None, ""
        try:
            if self._board.fault:  # whoever set it may have looked before the process was there
                return None, ""
            room, self.compiling = replica.greet(self._settings)
            hand = Hand(room)
            self._board.join(hand)
            listener = threading.Thread(target=self._listen, args=(replica, hand), daemon=True)
            listener.start()
            while task := self._board.take(hand):
                replica.send(task)
        except Refused as refused:
            (error,) = refused.args
            fault = str(error)
            if not self._board.room and not isinstance(error, RuntimeError):  # the user's fault, and nobody can start
                self._board.fail(ReplicaError(fault))
        except (EOFError, OSError):
            pass  # it has died: how, is known when it is reaped
        except TookTooLong as late:
            fault = str(late)
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
        finally:
            replica.kill()
            if listener:
                listener.join()  # answers that were sent before it died still count
            status = replica.stop()
            self.replica = None
        return hand, (hand.hung if hand else "") or fault or status

    def _listen(self, replica: Replica, hand: Hand) -> None:
        """Brings answers back until the process is dead, or kills it because it hangs."""
        self.stages.append({})
        idle = WaitLimit(self._stall, 2 * BEAT_S, "no work done for {:g} s")
        try:
            while True:
                message = replica.receive()
                worked, self.stages[-1] = message["stages"] != self.stages[-1], message["stages"]
                if "number" in message:
                    self._board.answer(hand, *unpack_answer(message))
                elif hand.tasks and not worked:
                    idle.check()
                    continue
                idle.restart()
        except EOFError:
            pass
        except TookTooLong as late:
            hand.hung = str(late)
            replica.kill()
        except Exception as error:
            self._print(f"talks nonsense: {type(error).__name__}: {error}")
        self._board.mark_gone(hand)

    def _print(self, line: str) -> None:
        with contextlib.suppress(Exception):  # a closed stderr stops no run, and nobody may wait for its reader
            self._log(f"replica {self._number}: {line}")


def _print(stream: IO[bytes], log: Log) -> None:
    with stream:
        for line in stream:
            log(line.decode(errors="replace").rstrip())
