"""Random walks through the masks of a constraint: a model that has no idea."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from jaxphoton.constraints.automaton import unpack_bits
from jaxphoton.constraints.protocol import Constraint

EOS = 0


def walk(
    constraint: Constraint, vocab_size: int, seed: int, closing: Sequence[int] = (), limit: int = 300
) -> list[int]:
    """Ids up to the end, without it.

    Args:
      closing: ids that tend to end what is open, taken more often, and the end too; most walks would not end else.

    Raises:
      AssertionError: nothing may follow.
    """
    chance, ids = random.Random(seed), []
    hurry = chance.choice((0.1, 0.4, 0.8))
    ending = np.isin(np.arange(vocab_size), [EOS, *closing])
    while len(ids) < limit:
        allowed = unpack_bits(constraint.mask(), vocab_size)
        assert allowed.any()
        wanted = allowed & ending
        among = wanted if wanted.any() and (chance.random() < hurry or len(ids) > limit // 2) else allowed
        token = int(chance.choice(np.flatnonzero(among)))
        if token == EOS:
            return ids
        constraint.accept(token)
        ids.append(token)
    raise TimeoutError(f"no end after {limit} ids")
