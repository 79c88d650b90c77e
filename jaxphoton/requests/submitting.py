"""How one ask is handed over and followed: the same for a model in this process and for engine processes.

    pending = model.submit(image, Ask("caption"), on_event=print)
    result = pending.future.result()

Events tell what is known of the result before it is complete. An event is a mapping with one key, of JSON values, so
that it can cross a process:

    {"reasoning": {"text", "grounding"}}    of a question, once, before the first piece of the answer
    {"bbox": {"x_min", "y_min", "x_max", "y_max"}}    of an outline, once
    {"chunk": text}    the next piece of the caption, the answer or the path; no piece breaks a character

All pieces of an ask, joined, are the text of its result. Skills without a text have no events.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Protocol

from jaxphoton.requests.answer import Result
from jaxphoton.requests.ask import Ask
from jaxphoton.requests.tokens import OnEvent


class Pending(Protocol):
    """An ask on its way.

    Attributes:
      future: the Result, or what has ended the ask instead: an ImageError, DeadlineExceeded, ModelClosed, another
        EngineError. It is done after the last event was delivered, and cancelled once the ask was given up. Cancelling
        the future itself stops no work: `cancel` does.
    """

    @property
    def future(self) -> Future[Result]: ...

    def cancel(self) -> None:
        """Gives the ask up, also in the engine, unless it has ended. From any thread, any number of times."""
        ...


class Submitter(Protocol):
    """Takes asks from any thread."""

    def submit(self, image: Any, ask: Ask, on_event: OnEvent | None = None, wait: bool = False) -> Pending:
        """Hands over one ask.

        Args:
          image: as in `Model`, or None where the skill needs none. It is read before this returns, or in a process
            of its own; an image that cannot be read is the error of the call or of the future.
          ask: what is asked. Its deadline counts from the call on, its priority among all that wait.
          on_event: called with each event, in their order, on a thread that is not the caller's; must return quickly.
            What it raises ends this ask with that exception.
          wait: until there is room, instead of raising QueueFull.

        Raises:
          TypeError, ValueError: arguments or settings that the skill does not take, or an ask that could never run.
          ImageError: the image cannot be read.
          QueueFull: too many asks wait.
          DeadlineExceeded: the deadline passed before this could be handed over.
          ModelClosed: the model was closed.
          EngineError: the engine cannot start, or has failed.
        """
        ...
