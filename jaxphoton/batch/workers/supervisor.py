"""One engine process after the other on one GPU: what is expected of it, and when it is given up."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Mapping, Sequence

from jaxphoton.batch.workers.child import BEAT_S, GREETING
from jaxphoton.batch.workers.protocol import CANCEL, EngineTask, ReplicaError, error_of, outcome_of
from jaxphoton.image.errors import ImageError
from jaxphoton.processes.assignments import Assignments, WorkerLoad
from jaxphoton.processes.child import Child, Log
from jaxphoton.processes.frames import Message, pack
from jaxphoton.processes.pipe import WaitLimit
from jaxphoton.processes.supervisor import Refused, Supervisor
from jaxphoton.requests.errors import DeadlineExceeded, EngineError

# A process that dies is replaced after 1, 2, 4 seconds; the fourth in a row that has answered nothing is the last.
PAUSE_S = 1.0
MOST_DEATHS = 4
# With images and signs of life, but without a launch: its device hangs. The largest model on a CPU is faster.
STALL_S = 1800.0


class EngineProcess(Child):
    """A running engine process; its image workers end with it."""

    end_s = 60.0


class EngineSupervisor(Supervisor[EngineTask, EngineProcess]):
    """Keeps one process.

    Attributes:
      stages: seconds of the device so far, by stage, for each process there has been.
      compiling: seconds for which the latest that is ready compiled; 0 before.
    """

    masked = frozenset((signal.SIGINT, signal.SIGTERM))

    def __init__(
        self,
        number: int,
        work: Assignments[EngineTask],
        command: Sequence[str],
        environment: Mapping[str, str],
        settings: Message,
        log: Log,
        silence: float,
    ):
        super().__init__(f"jaxphoton-replica-{number}", work)
        self._number, self._command, self._environment, self._settings = number, command, environment, settings
        self._log, self._silence = log, silence
        # A picture may be all it waits for, twice.
        stall = max(STALL_S, 3 * (settings["engine"].get("image_timeout") or 0))
        self._idle = WaitLimit(stall, 2 * BEAT_S, "no work done for {:g} s")
        self.compiling = 0.0
        self.stages: list[Mapping[str, float]] = []

    def start_child(self) -> EngineProcess:
        if self._number and not self.stages:
            self.work.wait_for_first()  # which compiles what the others find
        return EngineProcess(
            self._command, self._environment, self._silence, "no sign of life for {:g} s", log=self.say, group=True
        )

    def greet(self, child: EngineProcess) -> int:
        child.greet(self._settings, GREETING)
        while "room" not in (reply := child.receive()):
            if "refused" in reply:
                error = error_of(reply["refused"])
                # The user's fault, and nobody can start.
                if not self.work.room and not isinstance(error, RuntimeError):
                    self.work.fail(ReplicaError(str(error)))
                raise Refused(str(error))
        self.compiling = reply["compiling"]
        self.stages.append({})
        self._idle.restart()
        return reply["room"]

    def send(self, child: EngineProcess, task: EngineTask) -> None:
        if task.given_up:
            child.send(pack({"number": task.number, CANCEL: True}))
        else:
            child.send(task.frame(), task.data)

    def handle(self, child: EngineProcess, load: WorkerLoad[EngineTask], message: Message) -> None:
        for late in self.work.expire():
            late.finish(DeadlineExceeded("its deadline passed before an engine process could take it"))
        if "event" in message:
            self._idle.restart()
            self._deliver(load, message)
            return
        worked, self.stages[-1] = message["stages"] != self.stages[-1], message["stages"]
        if "number" in message:
            self.work.finish(load, message["number"], outcome_of(message))
        elif self.work.given(load) and not worked:
            self._idle.check()
            return
        self._idle.restart()

    def _deliver(self, load: WorkerLoad[EngineTask], message: Message) -> None:
        task = self.work.given(load, message["number"])
        if task is None or task.given_up or task.on_event is None:
            return
        task.begun = True
        try:
            task.on_event(message["event"])
        except Exception as error:
            task.fault = error
            self.work.cancel(task)

    def failure(self, load: WorkerLoad[EngineTask] | None, status: str, task: EngineTask) -> Exception:
        if task.begun:
            return EngineError(f"the engine process ended in the middle of an answer ({status})")
        if load and load.hung:
            fault = f"the engine process hung while it had this image ({load.hung}); one before had died or hung too"
            return ImageError(task.name, "timeout", fault)
        fault = f"the engine process died twice while it had this image ({status})"
        return ImageError(task.name, "process-died", fault)

    def goes_on(self, load: WorkerLoad[EngineTask] | None, status: str, failures: int, again: int) -> bool:
        last = failures == MOST_DEATHS
        self.say(
            f"{'hung' if load and load.hung else 'has died'} ({status}); "
            + ("given up" if last else "started again")
            + f", images to try again: {again}"
        )
        if last:
            self.work.retire(ReplicaError(f"no engine process is left: {status}"))
        else:
            self.work.pause(PAUSE_S * 2 ** (failures - 1))
        return not last

    def say(self, line: str) -> None:
        with contextlib.suppress(Exception):  # a closed stderr stops no run, and nobody may wait for its reader
            self._log(f"replica {self._number}: {line}")
