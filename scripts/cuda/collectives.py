"""What the devices of a mesh send each other in a compiled program, from its optimized HLO."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
_LINE = re.compile(
    r"^\s*(?:ROOT )?%(?P<name>\S+) = (?P<shape>\(.*?\)|\S+) (?P<kind>" + "|".join(_KINDS) + r")(?P<start>-start)?\("
)
_ARRAY = re.compile(r"(?P<dtype>[a-z]+)(?P<bits>\d+)\w*\[(?P<sizes>[\d,]*)\]")


@dataclass(frozen=True, slots=True)
class Collective:
    """One of them.

    Attributes:
      kind: as HLO has it, "all-reduce".
      name: of the instruction.
      bytes: of the result on a device; of one that is begun and ended apart, with its operands.
      arrays: how many it takes at once.
    """

    kind: str
    name: str
    bytes: int
    arrays: int

    def __str__(self) -> str:
        return f"{self.kind} {self.name} of {self.bytes / 1e6:.3f} MB"


def collectives(hlo: str) -> list[Collective]:
    """Those of all computations, each once, the largest first."""
    found = []
    for line in hlo.splitlines():
        if match := _LINE.match(line):
            arrays = list(_ARRAY.finditer(match["shape"]))
            size = sum(int(array["bits"]) // 8 * _elements(array["sizes"]) for array in arrays)
            found.append(Collective(match["kind"], match["name"], size, len(arrays)))
    return sorted(found, key=lambda one: -one.bytes)


def _elements(sizes: str) -> int:
    return math.prod(int(size) for size in sizes.split(",") if size)
