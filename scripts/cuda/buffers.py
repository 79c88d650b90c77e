"""XLA's buffer assignment: every value that a compiled program keeps in memory of its own."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_ALLOCATION = re.compile(r"^allocation \d+: size \d+,(?P<use>.*)")
_VALUE = re.compile(r"^ value: <\d+ (?P<name>[^\s{]+)[^@]*@\d+> \(size=(?P<bytes>\d+),offset=\d+\): (?P<shape>\S+)")
_DIMENSIONS = re.compile(r"\w+\[([\d,]*)\]")


@dataclass(frozen=True, slots=True)
class Value:
    """The result of one HLO instruction.

    Attributes:
      name: of the instruction.
      bytes: of the result.
      shape: as HLO writes it.
      line: the instruction.
    """

    name: str
    bytes: int
    shape: str
    line: str = ""

    @property
    def dimensions(self) -> tuple[int, ...]:
        match = _DIMENSIONS.match(self.shape)
        return tuple(int(size) for size in match[1].split(",") if size) if match else ()

    @property
    def elements(self) -> int:
        return math.prod(self.dimensions)

    def __str__(self) -> str:
        return f"{self.shape} ({self.bytes / 1e6:.1f} MB): {self.line or self.name}"


def parse(assignment: str, hlo: str) -> list[Value]:
    """Values that lie in no argument's memory, the largest first.

    What is written in place into a donated argument lies in that argument. Tuples, which are tables of addresses,
    and constants are left out.
    """
    own, found = False, {}
    for line in assignment.splitlines():
        if allocation := _ALLOCATION.match(line):
            own = not re.search(r"\bparameter \d|\bconstant\b|\bthread-local\b", allocation["use"])
        elif own and (value := _VALUE.match(line)):
            size, shape = int(value["bytes"]), value["shape"]
            if not shape.startswith("("):
                found.setdefault((value["name"], shape), size)
    lines = _instructions(hlo)
    values = [Value(name, size, shape, lines.get(name, "")) for (name, shape), size in found.items()]
    return sorted(values, key=lambda value: -value.bytes)


def _instructions(hlo: str) -> dict[str, str]:
    """HLO's lines by the name they define, without their metadata."""
    lines = {}
    for line in hlo.splitlines():
        name, equals, _ = line.strip().removeprefix("ROOT ").partition(" = ")
        if equals:
            lines[name.removeprefix("%")] = line.strip().partition(", metadata=")[0][:240]
    return lines
