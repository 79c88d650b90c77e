"""All grammars of a family, by name."""

from __future__ import annotations

from collections.abc import Mapping

from jaxphoton.constraints.grammar import Grammar
from jaxphoton.models.moondream.config import TokenizerConfig
from jaxphoton.models.moondream.skills.caption import text_grammars
from jaxphoton.models.moondream.skills.detect import detect_grammars
from jaxphoton.models.moondream.skills.point import point_grammars
from jaxphoton.models.moondream.skills.query import reasoning_grammars
from jaxphoton.models.moondream.skills.segment import segment_grammars


def grammars(config: TokenizerConfig) -> Mapping[str, Grammar]:
    """The grammars of every skill that the family's templates allow."""
    return {
        **text_grammars(config),
        **reasoning_grammars(config),
        **detect_grammars(config),
        **point_grammars(config),
        **segment_grammars(config),
    }
