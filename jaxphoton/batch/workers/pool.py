"""Several engine processes, one a GPU, behind one reader of jobs and one reader of answers.

    with Replicas(replica_gpus(None), {"path_or_id": "vikhyatk/moondream2"}) as model:
        for answer in model.answer(jobs): ...

In place of a `Model` for whoever has jobs. This process opens no GPU. Every process is a new program (jax has
threads, so never a fork), sees one GPU, loads the same model with the same options, and has image workers of its own.
The first compiles; the others start when it is ready and find its programs in the cache. Memory: each process lets jax
take what one process takes on that GPU, and here are held at most the jobs that all have, and those of one more.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, replace
from typing import Any

from jaxphoton.batch.workers.child import GREETING
from jaxphoton.batch.workers.inprocess import EngineOptions
from jaxphoton.batch.workers.protocol import CLOSED, EngineTask, ReplicaError, ask_error, ask_task, job_task
from jaxphoton.batch.workers.supervisor import EngineSupervisor
from jaxphoton.config import EngineConfig
from jaxphoton.messages import to_stderr
from jaxphoton.processes.assignments import Assignments
from jaxphoton.processes.child import Log, Program, child_environment
from jaxphoton.processes.supervisor import ProcessPool
from jaxphoton.requests.answer import Answer
from jaxphoton.requests.ask import Ask, Job
from jaxphoton.requests.bounds import image_workers
from jaxphoton.requests.dispatcher import Dispatcher
from jaxphoton.requests.errors import DeadlineExceeded, QueueFull
from jaxphoton.requests.submitting import OnEvent, Pending

CLOSE_S = 10.0
SILENCE_S = 60.0
# A driver in trouble can hold a killed process for ever.
END_S = 60.0
_DEFAULT = EngineOptions()


class Replicas:
    """Answers jobs with several engine processes. Close it (or use `with`).

    A process that dies is started again, three times at most without an answer in between (see `supervisor`), and the
    jobs it had are tried again one at a time (see `Assignments`). One that gives no sign of life (it is stopped, or
    hangs) is killed, and counts as dead. A job under which two processes died becomes an ImageError ("process-died" or
    "timeout"), the others go on. Ctrl-C reaches this process alone; when it ends, however that happens, the others end
    too.

    Attributes:
      compiling: seconds for which the first process compiled. The others find its programs, and start while it works.
    """

    def __init__(
        self,
        gpus: Sequence[str | None],
        options: Mapping[str, Any],
        engine: EngineOptions = _DEFAULT,
        *,
        log: Log | None = None,
        bound: int | None = None,
        wait: bool = True,
        silence: float = SILENCE_S,
        command: Sequence[str] = ("-m", "jaxphoton.batch.workers.child"),
    ):
        """Starts the processes.

        Args:
          gpus: one entry a process, see `replica_gpus`.
          options: of `Model.from_pretrained`, without `engine`; JSON values.
          engine: of each process; without `image_workers`, half the cores are shared among them.
          log: takes lines for people: what the processes print, and when one dies; by default to stderr.
          bound: jobs and asks under way at most, here and in the processes; by default what all take at once, and one
            more.
          wait: for the first, see `wait`.
          silence: seconds without a sign of life after which a process hangs; time in which this one is stopped does
            not count. Signs come every two seconds, also while it loads and compiles.
          command: what Python runs in each.

        Raises:
          ReplicaError: none can start; the message says why.
        """
        if engine.image_workers is None:
            engine = replace(engine, image_workers=image_workers(EngineConfig(), len(gpus)))
        settings = {"options": dict(options), "engine": asdict(engine)}
        self._work: Assignments[EngineTask] = Assignments(len(gpus), bound=bound)
        environment = child_environment()

        def program(gpu: str | None) -> Program:
            return Program(
                command,
                environment if gpu is None else environment | {"CUDA_VISIBLE_DEVICES": gpu},
                GREETING,
                settings | {"gpu": gpu is not None},
                silence,
                "no sign of life for {:g} s",
                beats=True,
                end_s=END_S,
                group=True,
            )

        self._supervisors = [
            EngineSupervisor(number, self._work, program(gpu), log or to_stderr) for number, gpu in enumerate(gpus)
        ]
        self._processes = ProcessPool(self._work, self._supervisors)
        self.compiling = 0.0
        if wait:
            self.wait()

    def wait(self) -> None:
        """Waits for the first process.

        Raises:
          ReplicaError: none can start; the message says why. Or this was closed meanwhile.
        """
        try:
            self._work.wait_for(lambda: self._work.room)
            if self._work.fault:
                raise self._work.fault
        except BaseException:
            self.close()
            raise
        self.compiling = max(each.compiling for each in self._supervisors)

    @property
    def pids(self) -> list[int]:
        """Process ids, without those that are being replaced."""
        return self._processes.pids

    @property
    def ready(self) -> int:
        """Processes that answer."""
        return self._work.ready

    @property
    def unfinished(self) -> int:
        """Jobs and asks under way, here and in the processes."""
        return self._work.unfinished

    @property
    def fault(self) -> str | None:
        """Why nothing is answered any more; None while it is."""
        return None if self._work.fault is None else str(self._work.fault)

    @property
    def held(self) -> dict[str, int]:
        """What the requests of all processes hold, see `LocalAnswerer`, as of the last sign of life."""
        totals: Counter[str] = Counter()
        for each in self._supervisors:
            totals.update(each.held)
        return dict(totals)

    @property
    def stages(self) -> dict[str, float]:
        """Seconds of all devices so far, by stage; see `LocalAnswerer`."""
        totals: Counter[str] = Counter()
        for each in self._supervisors:
            for stages in list(each.stages):
                totals.update(stages)
        return dict(totals)

    def answer(self, jobs: Iterable[Job]) -> Iterator[Answer]:
        """Answers any number of jobs, each as it finishes, as `Model.answer`; images are paths or bytes. Under way
        are what all processes take at once, and one more.

        Leaving early gives the jobs up; what the processes have at that moment, they finish for nobody.

        Raises:
          ReplicaError: no process is left, or this was closed. Jobs not answered by then have not failed.
        """
        room = min(self._work.bound, (len(self._supervisors) + 1) * self._work.room)
        dispatcher = Dispatcher(jobs, _WholeJobs(self._work), room=room, most=sys.maxsize)
        for answer in dispatcher.answers():
            if isinstance(answer.error, ReplicaError):
                raise answer.error
            yield answer

    def submit(self, image: Any, ask: Ask, on_event: OnEvent | None = None, wait: bool = False) -> Pending:
        """Hands over one ask, see `requests.submitting`; the image is a path, bytes, or None. What the skill does not
        take, and an image that cannot be read, are errors of the future.

        Its deadline and its priority count here and in the process: their clock is one for all processes of a machine.
        When the process dies, it is tried again as a job is, unless `on_event` has been given a part of its answer;
        then it ends with an EngineError.

        Raises: as `Submitter.submit`.
        """
        task = ask_task(image, ask, on_event)
        if not _is_late(ask):
            try:
                if self._work.put(task, wait):
                    return task
            except ReplicaError as fault:
                raise ask_error(fault) from None
        if _is_late(ask):
            raise DeadlineExceeded("its deadline passed before it could be handed over")
        raise QueueFull(f"{self._work.bound} jobs and asks wait or are under way; no more are taken")

    def close(self) -> None:
        """Ends the processes, within `CLOSE_S` seconds."""
        self._processes.end(ReplicaError(CLOSED), CLOSE_S)

    def __enter__(self) -> Replicas:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _WholeJobs:
    """The backend of a dispatcher: jobs are handed over whole, and their pictures prepared by the processes."""

    def __init__(self, work: Assignments[EngineTask]):
        self._work = work

    def prepare(self, job: Job) -> tuple[None, Future[None]]:
        future: Future[None] = Future()
        future.set_result(None)
        return None, future

    def start(self, job: Job, prepared: None, picture: None) -> list[EngineTask]:
        task = job_task(job)
        self._work.put(task)
        return [task]

    def answer(self, job: Job, picture: None, requests: list[EngineTask]) -> Answer:
        return replace(requests[0].future.result(), key=job.key)


def _is_late(ask: Ask) -> bool:
    return ask.deadline is not None and ask.deadline <= time.monotonic()
