"""What can be asked of a Moondream: prompts in, grammar while generating, results out. Never imports jax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxphoton.models.answers import form_of
from jaxphoton.models.moondream.config import TokenizerConfig
from jaxphoton.models.moondream.prompts import Encode
from jaxphoton.models.moondream.skills.caption import Caption
from jaxphoton.models.moondream.skills.chat import Chat
from jaxphoton.models.moondream.skills.detect import Detect
from jaxphoton.models.moondream.skills.point import Point
from jaxphoton.models.moondream.skills.query import Query
from jaxphoton.models.moondream.skills.segment import Segment
from jaxphoton.requests.tokens import Form

# Skill -> its form, which knows its grammars too.
FORMS: dict[str, Any] = {
    "caption": Caption,
    "query": Query,
    "detect": Detect,
    "point": Point,
    "segment": Segment,
    "chat": Chat,
}


def no_ids(text: str) -> list[int]:
    """An encoder for forms of which only the template is looked at."""
    return []


class MoondreamSkills:
    """What one model can be asked; see `FamilySkills`.

    Attributes:
      config: templates and special ids.
      encode: text to ids, without special tokens; without one, forms can only be checked.
      clamp_boxes: cut boxes at the border of the picture.
    """

    def __init__(self, config: TokenizerConfig, encode: Encode = no_ids, clamp_boxes: bool = False):
        self.config, self.encode, self.clamp_boxes = config, encode, clamp_boxes

    def form(self, skill: str, arguments: Mapping[str, Any]) -> Form:
        """See `FamilySkills.form`."""
        return form_of(FORMS, skill).asked(self, **arguments)
