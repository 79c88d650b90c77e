"""How asks of coroutines get to what answers them: what takes long is done elsewhere, and the rest on the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from jaxphoton.config import EngineConfig
from jaxphoton.requests.ask import Ask
from jaxphoton.requests.submitting import Pending, Submitter
from jaxphoton.requests.tokens import OnEvent

if TYPE_CHECKING:  # which imports jax
    from jaxphoton.image.prepare import Prepared
    from jaxphoton.requests.preparing import PreparedAsk
    from jaxphoton.requests.session import Session

# Only for more pictures at once than this are the image workers started: starting one takes as long as decoding seven
# photos of 640x480.
ENOUGH_FOR_WORKERS = 16


class Handover(Protocol):
    """An ask that only has to be handed over.

    Attributes:
      instant: `submit` takes no time, unless it waits for room.
    """

    @property
    def instant(self) -> bool: ...

    def submit(self, on_event: OnEvent | None, wait: bool) -> Pending:
        """See `Submitter`; from any thread."""
        ...


class Carrier(Protocol):
    """The way to what answers."""

    @property
    def batch_requests(self) -> int:
        """Asks of one list that may be under way at once."""
        ...

    async def prepared(self, image: Any, ask: Ask, together: int) -> Handover:
        """Gets an ask ready without keeping the loop.

        Args:
          together: images that are asked about in the same call.

        Raises: what `Submitter.submit` raises.
        """
        ...


class Model(Protocol):
    """Whose session may still have to be started, which compiles."""

    @property
    def session(self) -> Session: ...

    @property
    def engine_config(self) -> EngineConfig: ...


class SessionCarrier:
    """To a model in this process: pictures are decoded in threads, or in the image workers where they are many."""

    def __init__(self, model: Model):
        self._model = model
        self._preparing = 0  # images now; counted on the loop

    @property
    def batch_requests(self) -> int:
        return self._model.engine_config.batch_requests

    async def prepared(self, image: Any, ask: Ask, together: int) -> Handover:
        self._preparing += image is not None
        many = max(self._preparing, together) > ENOUGH_FOR_WORKERS
        try:
            return await asyncio.to_thread(self._prepare, image, ask, many)
        finally:
            self._preparing -= image is not None

    def _prepare(self, image: Any, ask: Ask, many: bool) -> Handover:
        session = self._model.session
        prepared = session.preparer.prepare(ask)
        picture = None if image is None else session.images.prepared_beside(image, many)
        return _ToSession(session, picture, prepared, ask)


@dataclass(frozen=True, slots=True, eq=False)
class _ToSession:
    session: Session
    picture: Prepared | Many[Prepared] | None
    prepared: PreparedAsk
    ask: Ask

    @property
    def instant(self) -> bool:
        # These would have to be made, or brought to the device.
        return self.prepared.constraint is None and self.prepared.adapter is None

    def submit(self, on_event: OnEvent | None, wait: bool) -> Pending:
        return self.session.submit_prepared(self.picture, self.prepared, self.ask, on_event, wait)


class DirectCarrier:
    """To a submitter that reads pictures in processes of its own, and so takes any ask at once.

    Args:
      batch_requests: see `Carrier`.
    """

    def __init__(self, submitter: Submitter, batch_requests: int):
        self._submitter, self.batch_requests = submitter, batch_requests

    async def prepared(self, image: Any, ask: Ask, together: int) -> Handover:
        return _Direct(self._submitter, image, ask)


@dataclass(frozen=True, slots=True, eq=False)
class _Direct:
    submitter: Submitter
    image: Any
    ask: Ask
    instant: bool = True

    def submit(self, on_event: OnEvent | None, wait: bool) -> Pending:
        return self.submitter.submit(self.image, self.ask, on_event, wait)
