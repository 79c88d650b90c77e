"""The engine: one thread owns the loop; anybody may submit."""

from __future__ import annotations

import copy
import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial

from jaxphoton.config import EngineConfig
from jaxphoton.engine.adapter_slots import StagedAdapters
from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.device import Device
from jaxphoton.engine.followers import GRACE_S
from jaxphoton.engine.launch import DeviceError, limits_of
from jaxphoton.engine.metrics import EngineMetrics, LaunchMetrics, Observers, Totals
from jaxphoton.engine.pages import PageAllocator
from jaxphoton.engine.pipeline import Pipeline
from jaxphoton.engine.request import Request, sequence_of
from jaxphoton.engine.scheduler import Scheduler
from jaxphoton.engine.submissions import OnToken, Submission, Submissions
from jaxphoton.processes.connection import PeerError
from jaxphoton.processes.peers import Leader
from jaxphoton.requests.errors import DeadlineExceeded, EngineError, ModelClosed, QueueFull, fault_of, forget_frames

__all__ = ["Engine", "OnToken", "Submission"]

_log = logging.getLogger(__name__)


class Engine:
    """Runs requests until shut down. A context manager: leaving it waits for what was submitted.

    `clock` is what deadlines are compared with, once before each launch. When its thread ends, whatever ended it, the
    engine lets go of all that it had on the device, and of the programs with the parameters in them. `on_metrics` is
    an observer of launches from the start.
    """

    def __init__(
        self,
        programs: Programs,
        on_event: Callable | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_metrics: Callable[[LaunchMetrics], None] | None = None,
    ):
        self._programs: Programs | None = programs
        config, self._family = programs.engine, programs.family
        self._config, self._most = config, config.most_requests
        self._device = Device(programs)  # first: so many pages that no memory holds them are its fault, not the host's
        self.scheduler = Scheduler(limits_of(config, programs.buckets), PageAllocator(programs.pages))
        self._grammars, self._mask_words = programs.automaton.start, programs.mask_words
        slots = config.adapter_slots
        self._staged = StagedAdapters(programs.adapter_arrays, programs.on_device, kept=slots, most=slots)
        self._observers, self._totals = Observers("launches", "requests"), Totals()
        self._observers.add(launches=self._totals.add)
        self._observers.add(launches=on_metrics)
        self._submissions = Submissions(self.scheduler, self._observers, clock, self._ended)
        self.pipeline = Pipeline(
            self._device,
            self.scheduler,
            self._family.readout,
            config.depth,
            self._submissions.finished,
            self._submissions.token,
            on_event,
            partial(self._observers.tell, "launches"),
            clock,
            programs.mask_words,
        )
        self._clock = clock
        self._commands: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._pending = 0
        self._resting = False  # nothing was left to do when the loop last looked
        self._closing = self._stuck = False
        self._failure: BaseException | None = None
        self._released = threading.Event()  # it is, or its thread waits for a launch that will not end
        self._thread = threading.Thread(target=self._run, name="jaxphoton-engine", daemon=True)
        self._thread.start()
        if isinstance(programs.peers, Leader):
            programs.peers.watch(self._lost)

    @property
    def programs(self) -> Programs:
        """The programs it runs.

        Raises:
          ModelClosed: the engine has ended.
        """
        if self._programs is None:
            raise ModelClosed
        return self._programs

    @property
    def config(self) -> EngineConfig:
        return self._config

    @property
    def failure(self) -> str | None:
        """What has ended its loop, after which it takes nothing; None while it runs, and where it was shut down."""
        return None if self._failure is None else fault_of(self._failure)

    def submit(self, request: Request, on_token: OnToken | None = None, wait: bool = False) -> Submission:
        """Queues a request; from any thread.

        Args:
          request: what to generate.
          on_token: called on the engine's thread for every committed token; must return quickly. What it raises
            ends this request with that exception, and True with the tokens so far, as if it had stopped.
          wait: until the request can be taken, instead of raising QueueFull.

        Raises:
          ValueError: the request could never run (too long, too large, with an adapter that has no room), or its
            deadline is no number. What making its constraint raises is raised as it is.
          TypeError: its priority is not an int.
          QueueFull: too many requests wait.
          DeadlineExceeded: the deadline passed before this could be queued.
          ModelClosed: the engine was shut down.
          EngineError: it has failed.
        """
        sequence = sequence_of(request, self._family, self._config.page_size)
        self.scheduler.check(sequence)
        if request.grammar not in self._grammars:
            raise ValueError(f"this model has no grammar {request.grammar!r}")
        if sequence.constraint is not None and not self._mask_words:
            raise ValueError("restricted answers need an engine with EngineConfig(host_masks=True)")
        if request.adapter is not None:
            sequence.staged = self._staged.get(request.adapter)
        submission = Submission(sequence, on_token)
        sequence.submitted_at = self._clock()
        with self._wake:
            # Not the engine's own thread: it would wait for itself.
            if wait and threading.current_thread() is not self._thread:
                self._wait_for_room(request.deadline)
            if self._failure is not None:
                raise EngineError(f"the engine has failed: {self._failure}") from self._failure
            if self._closing:
                raise ModelClosed
            if self._pending >= self._most:
                raise QueueFull(f"{self._pending} requests are waiting or running; no more are taken")
            self._pending += 1
            self._commands.append(lambda: self._submissions.add(submission))
            self._wake.notify_all()
        return submission

    def cancel(self, submission: Submission) -> None:
        """Gives a request up; its future is cancelled unless it has a result already. From any thread."""
        with self._wake:
            self._commands.append(lambda: self._submissions.cancel(submission))
            self._wake.notify_all()

    def observe(
        self,
        launches: Callable[[LaunchMetrics], None] | None = None,
        requests: Callable[[Submission], None] | None = None,
    ) -> ExitStack:
        """Has functions called with what each launch has cost, and with each request that has ended, before its future
        is done; see `Observers`. From any thread; closing what this returns, or leaving its `with`, ends it."""
        return self._observers.add(launches=launches, requests=requests)

    def drain(self, timeout: float | None = None) -> bool:
        """Waits until nothing is left to do, zombies included; False if `timeout` seconds were not enough."""
        with self._wake:
            return self._wake.wait_for(lambda: self._pending == 0 and self._resting, timeout)

    def metrics(self) -> EngineMetrics:
        """A snapshot; from any thread."""
        scheduler = self.scheduler
        return EngineMetrics(
            launches=copy.deepcopy(self._totals),
            outcomes=dataclasses.replace(self._submissions.outcomes),
            waiting=len(scheduler.waiting),
            running=len(scheduler.running),
            set_back=scheduler.preemptions,
            pages=scheduler.allocator.usable,
            pages_held=scheduler.allocator.usable - scheduler.allocator.free,
            prefixes=len(scheduler.prefixes),
        )

    def shutdown(self, wait: bool = True) -> None:
        """Ends the engine, after all submitted work or, with wait=False, ending that with ModelClosed.

        May be called again, and from any thread; returns when nothing of it is left on the device (but at once where
        the engine's own thread calls).
        """
        with self._wake:
            self._closing = True
            if not wait:
                self._commands.append(self._submissions.close_all)
            self._wake.notify_all()
        if threading.current_thread() is not self._thread:
            self._released.wait()
            if not self._stuck:
                self._thread.join()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind, *_) -> None:
        self.shutdown(wait=kind is None)

    def _wait_for_room(self, deadline: float | None) -> None:
        timeout = None if deadline is None else min(max(0.0, deadline - self._clock()), threading.TIMEOUT_MAX)
        if not self._wake.wait_for(lambda: self._pending < self._most or self._closing or self._failure, timeout):
            raise DeadlineExceeded("the deadline passed before the request was queued")

    # The engine's thread

    def _run(self) -> None:
        try:
            while True:
                with self._wake:
                    if self.pipeline.idle and not self._commands:
                        self._resting = True
                        self._wake.notify_all()
                    self._wake.wait_for(lambda: self._commands or self._closing or not self.pipeline.idle)
                    if self._closing and not self._commands and self.pipeline.idle:
                        return
                    self._resting = False
                while self._commands:  # one at a time: if one fails, the rest must still be found
                    self._commands.popleft()()
                self._submissions.expire()
                if not self.pipeline.idle:
                    self._tick()
        except BaseException as error:  # the loop cannot go on: everybody who waits must learn of it
            self._fail(error)
        finally:
            try:
                self._release()
            finally:
                self._released.set()

    def _release(self) -> None:
        """Lets go of the device, and cuts the pipeline's hold on this engine: no garbage waits for its collection."""
        self._programs = None
        self._staged.close()
        self._device.close()
        self.pipeline.close()

    def _tick(self) -> None:
        try:
            self.pipeline.tick()
        except DeviceError as error:
            admitted = self.pipeline.start_over()
            _log.warning("starting over after a device error: %s", error)
            for sequence in admitted:
                sequence.retries += 1
                if sequence.retries > 1:
                    failure = EngineError(f"the device failed twice under this request: {error}")
                    failure.__cause__ = error
                    self._submissions.fail(sequence, failure)

    def _lost(self, error: PeerError) -> None:
        """Ends the engine where another process is lost, from another thread: its own may wait for that one forever."""

        def end() -> None:
            raise error

        with self._wake:
            self._commands.append(end)
            self._wake.notify_all()
        self._thread.join(GRACE_S)
        if self._thread.is_alive():
            self._stuck = True
            self._fail(error)
            self._released.set()

    def _ended(self) -> None:
        with self._wake:
            self._pending -= 1
            self._wake.notify_all()

    def _fail(self, error: BaseException) -> None:
        forget_frames(error)
        with self._wake:
            if self._failure is not None:  # its thread had been given up
                return
            self._failure = error
            self._resting = True
            commands, self._commands = self._commands, deque()
            self._wake.notify_all()
        for command in commands:
            with suppress(Exception):  # whatever broke the loop may have broken the scheduler
                command()
        self._submissions.abandon(error)
