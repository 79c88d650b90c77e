"""Restrictions of the ids that no small table could hold: asked on the host, token by token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np


class ConstraintError(RuntimeError):
    """An answer cannot go on as its restriction wants it, though that could be used."""


class Constraint(Protocol):
    """Restricts one sequence, beside its grammar. What it raises ends its own request."""

    def mask(self) -> np.ndarray:
        """The ids that may follow, uint32 [ceil(V / 32)], bit i of word w for id 32 w + i.

        The grammar must allow at least one of them.
        """
        ...

    def accept(self, token: int) -> None:
        """Takes the next id, one that the mask allowed; not called with the last of a sequence."""
        ...


# Makes the constraint of one sequence; called where the request is submitted, so that a fault is the caller's to see.
MakeConstraint = Callable[[], Constraint]
