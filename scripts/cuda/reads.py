"""How often a program reads each of its weights, from its optimized HLO."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from typing import Any

_LINE = re.compile(r"^\s*(?:ROOT )?%(?P<name>\S+) = (?P<shape>\w+\[[\d,]*\])\S* (?P<op>[\w-]+)\((?P<operands>[^)]*)\)")
_CALLS = re.compile(r"calls=%(\S+?),")
_PARAMETER = re.compile(r"^\s*%(\S+) = (\w+\[[\d,]*\])\S* parameter\(", re.MULTILINE)
_OF_A_LINE = re.compile(r" dynamic-slice\(%([^\s,)]+),.*?dynamic_slice_sizes=\{1,\d+\}")
_NAMES = {"bfloat16": "bf16", "float32": "f32", "int8": "s8", "uint8": "u8", "float8_e4m3fn": "f8e4m3fn"}
SAME = ("bitcast", "copy-start")  # the result lies where the operand does


def shape_of(leaf: Any) -> str:
    """As HLO writes it."""
    return f"{_NAMES[leaf.dtype.name]}[{','.join(map(str, leaf.shape))}]"


def weight_reads(hlo: str, shapes: Collection[str]) -> list[tuple[str, str, int]]:
    """Parameters of one of these shapes ("bf16[96,64]"): name, shape, and how many kernels take it whenever the program
    runs.

    Kernels in branches of conditionals do not count, nor do those that read lines of a table: gathers, and of a single
    row cuts.
    """
    before, _, entry = hlo.partition("\nENTRY ")
    computations = {text.partition(" ")[0].removeprefix("%"): text for text in map(str.strip, before.split("\n\n"))}
    gathers = {name for name, text in computations.items() if " gather(" in text}
    lines = {(name, shape) for name, text in computations.items() for shape in _shapes_cut(text)}
    origin: dict[str, str] = {}
    found: dict[str, str] = {}
    reads = Counter[str]()
    for line in entry.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        shape = match["shape"]
        operands = [name.strip().removeprefix("%") for name in match["operands"].split(",")]
        if match["op"] == "parameter" and shape in shapes:
            origin[match["name"]] = match["name"]
            found[match["name"]] = shape
        elif match["op"] in SAME and operands[0] in origin:
            origin[match["name"]] = origin[operands[0]]
        elif match["op"] not in ("conditional", "tuple"):
            called = _CALLS.search(line)
            if called is None or called[1] not in gathers:
                weights = {origin[name] for name in operands if name in origin}
                reads.update(name for name in weights if called is None or (called[1], found[name]) not in lines)
    return [(name, shape, reads[name]) for name, shape in found.items()]


def _shapes_cut(computation: str) -> set[str]:
    """Shapes of the parameters of which a computation cuts a line."""
    shapes = dict(_PARAMETER.findall(computation))
    return {shapes[name] for name in _OF_A_LINE.findall(computation) if name in shapes}
