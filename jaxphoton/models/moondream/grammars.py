"""All grammars of a family, by name."""

from __future__ import annotations

from collections.abc import Mapping

from jaxphoton.constraints.grammar import Grammar
from jaxphoton.models.moondream.config import TokenizerConfig
from jaxphoton.models.moondream.skills import FORMS


def grammars(config: TokenizerConfig) -> Mapping[str, Grammar]:
    """The grammars of every skill that the family's templates allow."""
    return {name: grammar for form in FORMS.values() for name, grammar in form.grammars(config).items()}
