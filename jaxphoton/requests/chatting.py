"""A conversation with its pictures in it, as the two that an engine takes: pictures, and what is asked about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxphoton.image.address import data_of, is_data
from jaxphoton.image.several import SeveralImages
from jaxphoton.requests.conversation import parted


def conversation(
    messages: Any, settings: Mapping[str, Any] | None, reasoning: bool | None
) -> tuple[Any, dict[str, Any], Any]:
    """The picture of a conversation, SeveralImages of more, None without one; the arguments of the skill; its settings.

    A setting "reasoning" goes before the argument, as in Photon.

    Raises:
      TypeError, ValueError: as `parted`; a picture that is a text, but no data address.
    """
    texts, pictures = parted(messages)
    if isinstance(settings, Mapping) and "reasoning" in settings:
        settings = dict(settings)
        reasoning = settings.pop("reasoning")
    return together([_picture(each) for each in pictures]), {"messages": texts, "reasoning": reasoning}, settings


def together(pictures: Sequence[Any]) -> Any:
    """What goes where an image goes: the only picture, or all, or None."""
    return SeveralImages(tuple(pictures)) if len(pictures) > 1 else next(iter(pictures), None)


def _picture(picture: Any) -> Any:
    if isinstance(picture, (list, tuple)):
        raise TypeError("messages: a picture cannot be a list")
    if not isinstance(picture, str):
        return picture
    # Messages come from elsewhere: no text in them names a file of this machine.
    if not is_data(picture):
        raise ValueError(
            "messages: a picture that is a text must be a data address (data:image/jpeg;base64,...); "
            "a file is a pathlib.Path"
        )
    return _DataFile(picture)


@dataclass(frozen=True, slots=True)
class _DataFile:
    """The file in a data address, for `prepare`; taken out where pictures are read, as that takes time."""

    address: str
    name: ClassVar[str] = "<data address>"

    def read(self) -> bytes:
        """Raises ValueError: there is none in it."""
        return data_of(self.address)
