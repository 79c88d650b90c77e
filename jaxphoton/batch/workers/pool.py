"""Several engine processes, one a GPU, behind one reader of jobs and one reader of answers.

    with Replicas(replica_gpus(None), {"path_or_id": "vikhyatk/moondream2"}) as model:
        for answer in model.answer(jobs): ...

In place of a `Moondream` for whoever has jobs. This process opens no GPU. Every process is a new program (jax has
threads, so never a fork), sees one GPU, loads the same model with the same options, and has image workers of its own.
The first compiles; the others start when it is ready and find its programs in the cache. Memory: each process lets jax
take what one process takes on that GPU, and here are held at most the jobs that all have, and those of one more.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, replace
from typing import Any

from jaxphoton.batch.workers.assignments import Assignment, Assignments, ReplicaError
from jaxphoton.batch.workers.engine_options import EngineOptions
from jaxphoton.batch.workers.process import Log
from jaxphoton.batch.workers.supervisor import Supervisor
from jaxphoton.image.process import worker_environment
from jaxphoton.messages import to_stderr
from jaxphoton.requests.answer import Answer
from jaxphoton.requests.ask import Job
from jaxphoton.requests.dispatcher import Desk

CLOSE_S = 10.0
SILENCE_S = 60.0
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
        silence: float = SILENCE_S,
        command: Sequence[str] = ("-m", "jaxphoton.batch.workers.child"),
    ):
        """Starts the processes and waits for the first.

        Args:
          gpus: one entry a process, see `replica_gpus`.
          options: of `Moondream.from_pretrained`, without `engine`; JSON values.
          engine: of each process; without `image_workers`, half the cores are shared among them.
          log: takes lines for people: what the processes print, and when one dies; by default to stderr.
          silence: seconds without a sign of life after which a process hangs; time in which this one is stopped does
            not count. Signs come every two seconds, also while it loads and compiles.
          command: what Python runs in each.

        Raises:
          ReplicaError: none can start; the message says why.
        """
        if engine.image_workers is None:
            engine = replace(engine, image_workers=max(1, min(8, (os.cpu_count() or 1) // 2 // len(gpus))))
        settings = {"options": dict(options), "engine": asdict(engine)}
        self._board = Assignments(len(gpus))
        self._supervisors = [
            Supervisor(
                number,
                self._board,
                command,
                _environment(gpu),
                settings | {"gpu": gpu is not None},
                log or to_stderr,
                silence,
            )
            for number, gpu in enumerate(gpus)
        ]
        for each in self._supervisors:
            each.start()
        try:
            self._board.wait_until_ready()
        except BaseException:
            self.close()
            raise
        self.compiling = max(each.compiling for each in self._supervisors)

    @property
    def pids(self) -> list[int]:
        """Process ids, without those that are being replaced."""
        return [replica.pid for each in self._supervisors if (replica := each.replica)]

    @property
    def stages(self) -> dict[str, float]:
        """Seconds of all devices so far, by stage; see `LocalAnswerer`."""
        totals: Counter[str] = Counter()
        for each in self._supervisors:
            for stages in list(each.stages):
                totals.update(stages)
        return dict(totals)

    def answer(self, jobs: Iterable[Job]) -> Iterator[Answer]:
        """Answers any number of jobs, each as it finishes, as `Moondream.answer`; images are paths or bytes.

        Leaving early gives the jobs up; what the processes have at that moment, they finish for nobody.

        Raises:
          ReplicaError: no process is left, or this was closed. Jobs not answered by then have not failed.
        """
        room = (len(self._supervisors) + 1) * self._board.room
        desk = Desk(jobs, _no_picture, self._submit, _answered, _cancel, room=room, most=sys.maxsize)
        for answer in desk.answers():
            if isinstance(answer.error, ReplicaError):
                raise answer.error
            yield answer

    def close(self) -> None:
        """Ends the processes, within `CLOSE_S` seconds."""
        self._board.fail(ReplicaError("the replicas were closed"))
        deadline = time.monotonic() + CLOSE_S
        for each in self._supervisors:
            if replica := each.replica:
                replica.kill()
        for each in self._supervisors:
            # A future's callback runs in a supervisor, and may close this.
            if each is not threading.current_thread():
                each.join(max(0.0, deadline - time.monotonic()))

    def __enter__(self) -> Replicas:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _submit(self, job: Job, _: None) -> list[Assignment]:
        return [self._board.put(job)]


def _environment(gpu: str | None) -> dict[str, str]:
    """With which a process finds the modules that this one finds, and its GPU."""
    environment = os.environ | {"PYTHONPATH": worker_environment()["PYTHONPATH"]}
    return environment if gpu is None else environment | {"CUDA_VISIBLE_DEVICES": gpu}


def _no_picture(_: Job) -> Future[None]:
    """Pictures are prepared by the processes."""
    future: Future[None] = Future()
    future.set_result(None)
    return future


def _answered(job: Job, _: None, tasks: list[Assignment]) -> Answer:
    answer = tasks[0].future.result()
    return Answer(job.key, answer.results, answer.error, answer.size, answer.notes)


def _cancel(task: Assignment) -> None:
    task.future.cancel()
