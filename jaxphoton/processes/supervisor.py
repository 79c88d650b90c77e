"""One child process after the other: started, fed, listened to, and replaced when it dies or hangs."""

from __future__ import annotations

import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import CancelledError
from functools import partial
from typing import Any, Generic

from jaxphoton.processes.assignment import A, WorkerLoad
from jaxphoton.processes.assignments import Assignments
from jaxphoton.processes.child import Child, Program, Refused
from jaxphoton.processes.pipe import CANCEL, Message, TookTooLong


class Supervisor(threading.Thread, ABC, Generic[A]):
    """Keeps one child, and takes work from the assignments to it. A second thread listens to it.

    Attributes:
      child: None while there is none.
      masked: signals that do not end a child while it starts, and does not ignore them yet.
    """

    masked = frozenset((signal.SIGINT,))

    def __init__(self, name: str, work: Assignments[A], program: Program):
        # A daemon: the interpreter joins others before it runs the functions at its exit, which end the children.
        super().__init__(name=name, daemon=True)
        self.work, self.program = work, program
        self.child: Child | None = None
        self.listener: threading.Thread | None = None

    @abstractmethod
    def order(self, task: A) -> tuple[Message, bytes | None]:
        """The message for a piece of work, without its number, and the bytes behind it."""

    @abstractmethod
    def outcome(self, task: A, message: Message) -> Any:
        """The result in an answer to it; what this raises, or an exception it returns, is the outcome too."""

    @abstractmethod
    def failure(self, load: WorkerLoad[A] | None, status: str, task: A) -> Exception:
        """The end of work that has lost its children: the last one died, or was killed, as `status` says."""

    @abstractmethod
    def goes_on(self, load: WorkerLoad[A] | None, status: str, failures: int, again: int) -> bool:
        """Whether, and when, to start another child.

        Args:
          load: what the last one had; None if it was never ready.
          status: how it ended.
          failures: of children in a row that have finished nothing.
          again: how much of its work is tried again.
        """

    def refused(self, said: Any) -> str:
        """It has said why it cannot start; the same for people."""
        return str(said)

    def heard(self, load: WorkerLoad[A], message: Message) -> None:
        """Each message, from the one with its room on, before it is looked into; a TookTooLong says that it hangs."""

    def deliver(self, task: A, event: Any) -> None:
        """A part of a result."""

    def say(self, line: str) -> None:
        """Tells people what happens; nobody, by default."""

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
            self.child = child = Child(self.program)
        except Exception as error:  # whatever it is: work must not wait for a thread that has ended
            return None, str(error)
        fault = ""
        try:
            if self.work.fault:  # whoever set it may have looked before the child was there
                return None, ""
            reply = child.greet()
            load = WorkerLoad(reply["room"])
            self.heard(load, reply)
            if not self.program.beats:
                child.doing = partial(self.work.oldest, load)
            self.work.join(load)
            self.listener = threading.Thread(target=self._listen, args=(child, load), name=self.name, daemon=True)
            self.listener.start()
            self._feed(child, load)
        except (EOFError, OSError):
            pass  # it has died: how, is known when it is reaped
        except Refused as refused:
            fault = self.refused(*refused.args)
        except TookTooLong as late:
            fault = str(late)
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
        finally:
            child.kill()
            if self.listener:
                self.listener.join()  # what was said before it died still counts
            status = child.stop()
            self.child = self.listener = None
        return load, (load.hung if load else "") or fault or status

    def _feed(self, child: Child, load: WorkerLoad[A]) -> None:
        while task := self.work.take(load):
            if task.sent:  # not `given_up`: that may come between taking and sending it
                child.send({"number": task.number, CANCEL: True})
                continue
            if load.finished and not child.alive():  # it died idle: no fault of this one
                self.work.return_unsent(load, task)
                return
            message, data = self.order(task)
            child.send(message | {"number": task.number}, data)
            task.sent = True

    def _listen(self, child: Child, load: WorkerLoad[A]) -> None:
        """Brings results back until the child is dead, or kills it because it hangs or talks nonsense."""
        try:
            while True:
                message = child.receive()
                self.heard(load, message)
                if "number" not in message:
                    continue
                task = load.tasks.get(message["number"])
                if task is None:
                    if not self.work.fault:
                        raise ValueError(f"an answer to {message['number']}, which nobody asked")
                elif "event" in message:
                    self.deliver(task, message["event"])
                else:
                    self.work.finish(load, task, self._outcome(task, message))
        except (EOFError, OSError):
            pass
        except TookTooLong as late:
            load.hung = str(late)
        except Exception as error:
            self.say(f"talks nonsense: {type(error).__name__}: {error}")
        child.kill()
        self.work.mark_gone(load)

    def _outcome(self, task: A, message: Message) -> Any:
        try:
            return CancelledError() if CANCEL in message else self.outcome(task, message)
        except Exception as error:
            return error


class ProcessPool(Generic[A]):
    """The supervisors that share some work."""

    def __init__(self, work: Assignments[A], supervisors: Sequence[Supervisor[A]]):
        """Starts them."""
        self._work, self._supervisors = work, supervisors
        for supervisor in supervisors:
            supervisor.start()

    @property
    def pids(self) -> list[int]:
        """Process ids of the children, without those that are being replaced."""
        return [child.pid for supervisor in self._supervisors if (child := supervisor.child)]

    def end(self, fault: Exception, seconds: float = 0.0) -> None:
        """Ends the work with `fault`, and the children; waits for their end so many seconds at most. Without any it may
        run inside the collection of memory, in any thread."""
        self._work.fail(fault)
        for supervisor in self._supervisors:
            if child := supervisor.child:
                child.kill()
        deadline = time.monotonic() + seconds
        for supervisor in self._supervisors if seconds else ():
            # A future's callback runs in a thread of theirs, and may wait here.
            if threading.current_thread() not in (supervisor, supervisor.listener):
                supervisor.join(max(0.0, deadline - time.monotonic()))
