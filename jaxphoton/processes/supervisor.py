"""One child process after the other: started, fed, listened to, and replaced when it dies or hangs."""

from __future__ import annotations

import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial
from typing import Generic, TypeVar

from jaxphoton.processes.assignments import A, Assignments, WorkerLoad
from jaxphoton.processes.child import Child
from jaxphoton.processes.frames import Message
from jaxphoton.processes.pipe import TookTooLong

C = TypeVar("C", bound=Child)


class Refused(Exception):
    """A child says why it cannot start."""


class Supervisor(threading.Thread, ABC, Generic[A, C]):
    """Keeps one child, and takes work from the assignments to it. A second thread listens to it.

    Attributes:
      child: None while there is none.
      masked: signals that do not end a child while it starts, and does not ignore them yet.
    """

    masked = frozenset((signal.SIGINT,))

    def __init__(self, name: str, work: Assignments[A]):
        # A daemon: the interpreter joins others before it runs the functions at its exit, which end the children.
        super().__init__(name=name, daemon=True)
        self.work = work
        self.child: C | None = None
        self.listener: threading.Thread | None = None

    @abstractmethod
    def start_child(self) -> C:
        """Starts a program. May raise OSError."""

    @abstractmethod
    def greet(self, child: C) -> int:
        """Waits until it is ready; how many assignments it takes at once.

        Raises:
          Refused: it cannot start.
          EOFError, OSError, ValueError, TookTooLong: see `Child.greet`.
        """

    def joined(self, child: C, load: WorkerLoad[A]) -> None:
        """It is ready, and has been given nothing yet."""

    @abstractmethod
    def send(self, child: C, task: A) -> None:
        """Sends work, or that it is given up."""

    @abstractmethod
    def handle(self, child: C, load: WorkerLoad[A], message: Message) -> None:
        """What it says, on the listening thread; a TookTooLong says that it hangs."""

    @abstractmethod
    def failure(self, load: WorkerLoad[A] | None, status: str, task: A) -> Exception:
        """The end of work that has lost its children: the last one died, or was killed, as `status` says."""

    @abstractmethod
    def goes_on(self, load: WorkerLoad[A] | None, status: str, failures: int, again: int) -> bool:
        """Whether, and when, to start another one.

        Args:
          load: what the last one had; None if it was never ready.
          status: how it ended.
          failures: of children in a row that have finished nothing.
          again: how much of its work is tried again.
        """

    def run(self) -> None:
        # Children inherit the mask.
        signal.pthread_sigmask(signal.SIG_BLOCK, self.masked)
        failures = 0
        while not self.work.fault:
            load, status = self._run_child()
            if self.work.fault:
                return
            failures = 1 if load and load.finished else failures + 1
            again = self.work.take_back(load, partial(self.failure, load, status))
            if not self.goes_on(load, status, failures, again):
                return

    def _run_child(self) -> tuple[WorkerLoad[A] | None, str]:
        """The life of one child: what it had, if it was ever ready, and how it ended."""
        load: WorkerLoad[A] | None = None
        try:
            self.child = child = self.start_child()
        except OSError as error:
            return None, str(error)
        fault = ""
        try:
            if self.work.fault:  # whoever set it may have looked before the child was there
                return None, ""
            load = WorkerLoad(self.greet(child))
            self.joined(child, load)
            self.work.join(load)
            name = f"{self.name}-listener"
            self.listener = threading.Thread(target=self._listen, args=(child, load), name=name, daemon=True)
            self.listener.start()
            self._feed(child, load)
        except (EOFError, OSError):
            pass  # it has died: how, is known when it is reaped
        except (Refused, TookTooLong) as said:
            fault = str(said)
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
        finally:
            child.kill()
            if self.listener:
                self.listener.join()  # what was said before it died still counts
            status = child.stop()
            self.child = self.listener = None
        return load, (load.hung if load else "") or fault or status

    def _feed(self, child: C, load: WorkerLoad[A]) -> None:
        while task := self.work.take(load):
            if load.finished and not child.alive():  # it died idle: no fault of this one
                self.work.return_unsent(load, task)
                return
            self.send(child, task)

    def _listen(self, child: C, load: WorkerLoad[A]) -> None:
        """Brings results back until the child is dead, or kills it because it hangs or talks nonsense."""
        try:
            while True:
                self.handle(child, load, child.receive())
        except (EOFError, OSError):
            pass
        except TookTooLong as late:
            load.hung = str(late)
        except Exception as error:
            self.say(f"talks nonsense: {type(error).__name__}: {error}")
        child.kill()
        self.work.mark_gone(load)

    def say(self, line: str) -> None:
        """Tells people what happens; nobody, by default."""


def kill(supervisors: Iterable[Supervisor]) -> None:
    """Ends the children and waits for nothing: it may run inside the collection of memory, in any thread."""
    for supervisor in supervisors:
        if child := supervisor.child:
            child.kill()


def join(supervisors: Iterable[Supervisor], seconds: float) -> None:
    """Waits until all have ended, so many seconds at most."""
    deadline = time.monotonic() + seconds
    for supervisor in supervisors:
        # A future's callback runs in a thread of theirs, and may wait here.
        if threading.current_thread() not in (supervisor, supervisor.listener):
            supervisor.join(max(0.0, deadline - time.monotonic()))


def pids(supervisors: Iterable[Supervisor]) -> list[int]:
    """Process ids of the children, without those that are being replaced."""
    return [child.pid for supervisor in supervisors if (child := supervisor.child)]
