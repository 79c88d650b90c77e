"""Restricted answers: a JSON schema or a list of choices as a constraint, through llguidance (extra `grammar`)."""

from __future__ import annotations

from jaxphoton.constraints.grammars import AnswerGrammars
from jaxphoton.constraints.restriction import take_restriction

__all__ = ["AnswerGrammars", "take_restriction"]
