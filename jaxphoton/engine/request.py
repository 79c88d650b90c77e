"""What the engine is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

from jaxphoton.image.crops import Crops
from jaxphoton.prompt.templates import Prompt
from jaxphoton.skills.settings import Settings

_numbers = count()


@dataclass(frozen=True, slots=True, eq=False)
class ImageInput:
    """A picture ready for the vision encoder.

    Attributes:
      key: digest of the pixels; pictures of one key share their prefix.
      crops: its crops.
    """

    key: bytes
    crops: Crops


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One sequence to generate.

    Attributes:
      prompt: ids after BOS and the image.
      grammar: name in the family's grammars.
      settings: the seed is set.
      image: None for text only.
      number: order of submission.
    """

    prompt: Prompt
    grammar: str
    settings: Settings
    image: ImageInput | None = None
    number: int = field(default_factory=lambda: next(_numbers))
