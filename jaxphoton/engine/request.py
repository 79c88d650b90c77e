"""What the engine is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

from jaxphoton.constraints.protocol import MakeConstraint
from jaxphoton.image.crops import Crops
from jaxphoton.models.moondream.prompts import Prompt
from jaxphoton.requests.settings import Settings

_numbers = count()


@dataclass(frozen=True, slots=True, eq=False)
class ImageInput:
    """A picture ready for the vision encoder.

    Attributes:
      key: digest of the pixels; pictures of one key share their prefix.
      crops: its crops.
      seconds: what decoding and cropping took, for the metrics.
    """

    key: bytes
    crops: Crops
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One sequence to generate.

    Attributes:
      prompt: ids after BOS and the image.
      grammar: name in the family's grammars.
      settings: the seed is set.
      image: None for text only.
      constraint: makes the host's restriction of the ids, or None.
      deadline: when it is given up, in seconds of the engine's clock (`time.monotonic()`); None for never.
      priority: a higher one is admitted first; nobody who runs is set back for it.
      number: order of submission.
    """

    prompt: Prompt
    grammar: str
    settings: Settings
    image: ImageInput | None = None
    constraint: MakeConstraint | None = None
    deadline: float | None = None
    priority: int = 0
    number: int = field(default_factory=lambda: next(_numbers))

    @property
    def turn(self) -> tuple[int, int]:
        """Sorts by priority, then by age."""
        return -self.priority, self.number
