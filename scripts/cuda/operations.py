"""The arithmetic of a compiled program: products that XLA kept, and those of the kernels, which XLA does not see."""

from __future__ import annotations

import math
import re
from collections import defaultdict

from kernels_pallas.moe_prefill.triton import most_computed

_COMPUTATION = re.compile(r"^(?:ENTRY )?%(?P<name>\S+) \(.*\{$")
_DEFINITION = re.compile(
    r"^(?:ROOT )?%(?P<name>\S+) = (?P<shape>\S+) (?P<kind>[\w-]+)\((?P<operands>[^)]*)\)(?P<rest>.*)"
)
_SHAPE = re.compile(r"[a-z]\w*\[([\d,]*)\]")
_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
_CALLED = re.compile(r"(?:calls|to_apply|body|true_computation|false_computation)=%([^,\s]+)")
_KERNEL = re.compile(r'op_name="[^"]*?/(\w+)/pallas_call"')
_OPERANDS = re.compile(r"operand_layout_constraints=\{(.*?)\}, api_version")
TILE = 64  # queries and keys that prefix attention takes at once


def operations(hlo: str) -> int:
    """Multiplications and additions of the matrix products in an optimized module.

    Of the grouped products of experts it is the most that any routing makes: their tiles, each rounded up as the
    kernel does. Of other kernels prefix attention is counted.
    """
    own: dict[str, int] = defaultdict(int)
    calls: dict[str, list[str]] = defaultdict(list)
    shapes: dict[str, tuple[int, ...]] = {}
    inside = entry = ""
    for line in hlo.splitlines():
        if computation := _COMPUTATION.match(line):
            inside = computation["name"]
            entry = inside if line.startswith("ENTRY") else entry
        # The code of a kernel is in its line and of no use here.
        elif found := _DEFINITION.match(line.strip().partition(", backend_config=")[0]):
            shapes[found["name"]] = _dimensions(found["shape"])
            calls[inside] += _CALLED.findall(found["rest"])
            own[inside] += _products(found, shapes)

    def total(computation: str) -> int:
        return own[computation] + sum(map(total, calls[computation]))

    return total(entry)


def _products(found: re.Match[str], shapes: dict[str, tuple[int, ...]]) -> int:
    if found["kind"] == "dot":
        left = shapes[found["operands"].split(",")[0].strip().lstrip("%")]
        contracted = _CONTRACTED.search(found["rest"])
        assert contracted, found["rest"]
        return 2 * math.prod(shapes[found["name"]]) * math.prod(left[int(i)] for i in contracted[1].split(","))
    kernel, operands = _KERNEL.search(found["rest"]), _OPERANDS.search(found["rest"])
    if found["kind"] != "custom-call" or not kernel or not operands:
        return 0
    arrays = [tuple(map(int, sizes.split(","))) for sizes in _SHAPE.findall(operands[1])]
    if kernel[1] in ("moe_prefill_up", "moe_prefill_down"):
        (choices,), (begins,) = arrays[:2]  # one more than experts
        rows, columns = next(array[1:] for array in arrays if len(array) == 3)
        return 2 * most_computed(choices, begins - 1) * rows * columns
    if kernel[1] == "prefix_attention":
        rows, queries, heads, size = next(array for array in arrays if len(array) == 4)
        return 4 * rows * (-(-queries // TILE) * TILE) ** 2 * heads * size
    return 0


def _dimensions(shape: str) -> tuple[int, ...]:
    match = _SHAPE.match(shape)
    return tuple(int(size) for size in match[1].split(",") if size) if match else ()
