"""The model that a body names: one of the names of a server's model, and behind it that of an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from jaxphoton.bodies.faults import BodyError
from jaxphoton.bodies.skills import Body
from jaxphoton.messages import listed, quoted
from jaxphoton.requests.adapters import KnownAdapters, no_adapter
from jaxphoton.requests.ask import Ask

CHAT_DEFAULT = "moondream3-preview"  # what the `moondream` client asks for where nothing was said

T = TypeVar("T", bound=Body)


class ModelNames:
    """What a model is called by clients.

    Args:
      names: at least one.
      adapters: that may stand behind a name: NAME/ADAPTER.
    """

    def __init__(self, names: Sequence[str], adapters: KnownAdapters):
        self.names, self._adapters = tuple(names), adapters
        short = (name.rsplit("/", 1)[-1] for name in names)
        self._accepted = {*names, *short, CHAT_DEFAULT}

    def is_plain(self, name: str | None) -> bool:
        """Whether it is the model without an adapter."""
        return not name or name in self._accepted

    def every(self) -> tuple[str, ...]:
        """All names, those with adapters too; may look into a folder."""
        return (*self.names, *(f"{self.names[0]}/{adapter}" for adapter in self._adapters.names()))

    def resolve(self, body: T) -> T:
        """The body, whose ask has the adapter that its model's name ends in. May look into a folder.

        Raises:
          BodyError: there is no such model, or its settings name another adapter.
        """
        name = body.model or ""
        if self.is_plain(name):
            return body
        behind = (name.removeprefix(f"{base}/") for base in self._accepted if name.startswith(f"{base}/"))
        if (adapter := next((each for each in behind if each in self._adapters), None)) is None:
            raise self.unknown(name)
        return with_adapter(body, adapter)

    def of(self, ask: Ask) -> str:
        """What the model of an answer is called."""
        return self.names[0] if ask.adapter is None else f"{self.names[0]}/{ask.adapter}"

    def unknown(self, name: str) -> BodyError:
        """What those are told that ask for a model which is not here."""
        message = f"there is no model {quoted(name)} here; there is {listed(self.every())}"
        return BodyError(message, "model", "model_not_found", 404)


def adapter_behind(adapters: KnownAdapters, body: T) -> T:
    """The body with the adapter behind its model's name, whatever that is: files are written for any model.

    Raises:
      BodyError: what stands behind it can only be an adapter (FT_ID@STEP), and is not here; or settings name another.
    """
    _, slash, behind = (body.model or "").rpartition("/")
    if slash and behind in adapters:
        return with_adapter(body, behind)
    if slash and behind.rpartition("@")[2].isdecimal() and "@" in behind:
        raise BodyError(str(no_adapter(behind, adapters)), "model", "model_not_found", 404)
    return body


def with_adapter(body: T, adapter: str) -> T:
    """
    Raises:
      BodyError: its settings name another one.
    """
    named = body.ask.adapter
    if named not in (None, adapter):
        raise BodyError(
            f"the model is one with the adapter {quoted(adapter)}, and settings name {quoted(named)}", "model"
        )
    return replace(body, ask=replace(body.ask, adapter=adapter))
