"""One engine process after the other on one GPU: started, fed, listened to, and replaced when it dies or hangs."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Mapping, Sequence

from jaxphoton.batch.workers.assignments import Assignments, ReplicaError, WorkerLoad
from jaxphoton.batch.workers.child import BEAT_S
from jaxphoton.batch.workers.process import EngineProcess, Log, Refused
from jaxphoton.batch.workers.protocol import unpack_answer
from jaxphoton.processes.frames import Message
from jaxphoton.processes.pipe import TookTooLong, WaitLimit

# A process that dies is replaced after 1, 2, 4 seconds; the fourth in a row that has answered nothing is the last.
PAUSE_S = 1.0
MOST_DEATHS = 4
# With images and signs of life, but without a launch: its device hangs. The largest model on a CPU is faster.
STALL_S = 1800.0


class Supervisor(threading.Thread):
    """Keeps one process, and takes tasks from the board to it.

    Attributes:
      replica: the process; None while there is none.
      stages: seconds of the device so far, by stage, for each process there has been.
      compiling: seconds for which the latest that is ready compiled; 0 before.
    """

    def __init__(
        self,
        number: int,
        board: Assignments,
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
        self.replica: EngineProcess | None = None
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

    def _run_replica(self) -> tuple[WorkerLoad | None, str]:
        """The life of one process: what it had, if it was ever ready, and how it ended."""
        hand: WorkerLoad | None = None
        try:
            self.replica = replica = EngineProcess(self._command, self._environment, self._print, self._silence)
        except OSError as error:
            return None, str(error)
        listener, fault = None, ""
        try:
            if self._board.fault:  # whoever set it may have looked before the process was there
                return None, ""
            room, self.compiling = replica.greet(self._settings)
            hand = WorkerLoad(room)
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

    def _listen(self, replica: EngineProcess, hand: WorkerLoad) -> None:
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
