"""One engine process after the other on one GPU: what is expected of it, and when it is given up."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jaxphoton.batch.workers.child import BEAT_S
from jaxphoton.batch.workers.protocol import EngineTask, ReplicaError, error_of, outcome_of
from jaxphoton.image.errors import ImageError
from jaxphoton.processes.assignment import WorkerLoad
from jaxphoton.processes.assignments import Assignments
from jaxphoton.processes.child import Log, Program
from jaxphoton.processes.pipe import Message, WaitLimit
from jaxphoton.processes.supervisor import Supervisor
from jaxphoton.requests.errors import DeadlineExceeded, EngineError
from jaxphoton.requests.tokens import Event

# A process that dies is replaced after 1, 2, 4 seconds; the fourth in a row that has answered nothing is the last.
PAUSE_S = 1.0
MOST_DEATHS = 4
# With images and signs of life, but without a launch: its device hangs. The largest model on a CPU is faster.
STALL_S = 1800.0


class EngineSupervisor(Supervisor[EngineTask]):
    """Keeps one process.

    Attributes:
      stages: seconds of the device so far, by stage, for each process there has been.
      compiling: seconds for which the latest that is ready compiled; 0 before.
      held: what the requests of the one that is ready hold, see `LocalAnswerer`, as it last said; nothing before.
    """

    masked = frozenset((signal.SIGINT, signal.SIGTERM))

    def __init__(self, number: int, work: Assignments[EngineTask], program: Program, log: Log):
        self._number, self._log = number, log
        super().__init__(f"jaxphoton-replica-{number}", work, replace(program, log=self.say))
        # A picture may be all it waits for, twice.
        stall = max(STALL_S, 3 * (program.settings["engine"].get("image_timeout") or 0))
        self._idle = WaitLimit(stall, 2 * BEAT_S, "no work done for {:g} s")
        self.compiling = 0.0
        self.stages: list[Mapping[str, float]] = []
        self.held: Mapping[str, int] = {}

    def run(self) -> None:
        if self._number:
            self.work.wait_for(lambda: self.work.tried)  # the first compiles what the others find
        super().run()

    def refused(self, said: list[str]) -> str:
        error = error_of(said)
        if not self.work.room and not isinstance(error, RuntimeError):  # the user's fault, and nobody can start
            self.work.fail(ReplicaError(str(error)))
        return str(error)

    def order(self, task: EngineTask) -> tuple[Message, bytes | None]:
        return task.message, task.data

    def outcome(self, task: EngineTask, message: Message) -> Any:
        return outcome_of(message)

    def heard(self, load: WorkerLoad[EngineTask], message: Message) -> None:
        for late in self.work.expire():
            late.finish(DeadlineExceeded("its deadline passed before an engine process could take it"))
        if "room" in message:
            self.compiling = message["compiling"]
            self.stages.append({})
        self.held = message.get("held", self.held)
        stages = message.get("stages", self.stages[-1])
        worked, self.stages[-1] = stages != self.stages[-1], stages
        if worked or "number" in message or not load.tasks:
            self._idle.restart()
        else:
            self._idle.check()

    def deliver(self, task: EngineTask, event: Event) -> None:
        if task.given_up or task.on_event is None:
            return
        task.begun = True
        try:
            task.on_event(event)
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
        self.held = {}
        last = failures == MOST_DEATHS
        self.say(
            f"{'hung' if load and load.hung else 'has died'} ({status}); "
            + ("given up" if last else "started again")
            + f", images to try again: {again}"
        )
        if last:
            self.work.retire(ReplicaError(f"no engine process is left: {status}"))
        else:
            self.work.wait_for(lambda: False, PAUSE_S * 2 ** (failures - 1))
        return not last

    def say(self, line: str) -> None:
        with contextlib.suppress(Exception):  # a closed stderr stops no run, and nobody may wait for its reader
            self._log(f"replica {self._number}: {line}")
