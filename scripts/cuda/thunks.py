"""XLA's list of thunks: what a compiled program makes the GPU do, one line each, nested by indentation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_LINE = re.compile(r"^(?P<indent>\s*)\d+: (?P<kind>k[A-Z]\w*)\s*(?:\[[^\]]*\])?\s*(?P<name>\S*)")
CONTAINERS = {"kCommandBuffer", "kConditional", "kSequential", "kWhile"}


@dataclass(frozen=True, slots=True)
class Thunk:
    """One thunk: its kind, the name of what it runs, and the kinds of those it is inside of, outermost first."""

    kind: str
    name: str
    inside: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " / ".join([*self.inside, f"{self.kind} {self.name}".strip()])


def parse(text: str) -> list[Thunk]:
    """The thunks of a `thunk_sequence_after_thunk_passes.txt`, in its order."""
    found, open_thunks = [], []
    for line in text.splitlines():
        match = _LINE.match(line)
        if not match:
            continue
        indent = len(match["indent"])
        open_thunks = [thunk for thunk in open_thunks if thunk[0] < indent]
        found.append(Thunk(match["kind"], match["name"], tuple(kind for _, kind in open_thunks)))
        open_thunks.append((indent, match["kind"]))
    return found


def top_level(thunks: Iterable[Thunk]) -> dict[str, int]:
    """How many thunks of each kind are inside of no other."""
    return dict(sorted(Counter(thunk.kind for thunk in thunks if not thunk.inside).items()))


def kernels(thunks: Iterable[Thunk]) -> tuple[int, int]:
    """How many thunks occupy the GPU: (those that always run, those in a branch of a conditional)."""
    leaves = [thunk for thunk in thunks if thunk.kind not in CONTAINERS]
    branches = sum("kConditional" in thunk.inside for thunk in leaves)
    return len(leaves) - branches, branches


def names(thunks: Iterable[Thunk], most: int) -> tuple[str, ...]:
    """The names that the most of the thunks that always run have, their numbers left out, as "12 x name"."""
    leaves = [t for t in thunks if t.kind not in CONTAINERS and "kConditional" not in t.inside]
    counted = Counter(re.sub(r"[_.]\d+$", "", thunk.name) for thunk in leaves)
    return tuple(f"{count} x {name}" for name, count in counted.most_common(most))
