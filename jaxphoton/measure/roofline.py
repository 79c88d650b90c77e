"""Where the time of a request has to go: floors of its parts on a GPU, and what batching buys.

The floor of a part is the larger of its bytes over the bandwidth and its operations over the rate (the roofline model
of Williams, Waterman and Patterson, 2009): no program is faster, and a good one comes near.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxphoton.config.quantization import QUANTIZATIONS
from jaxphoton.measure.chips import Benchmark, Chip
from jaxphoton.measure.cost_model import encode_cost, prefill_cost, prefix_cost, step_cost
from jaxphoton.models.costs import Cost
from jaxphoton.models.protocol import Family

CROPS = (1, 5, 10, 13, 17)
PROMPT = 32  # positions of a question behind an image
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
MOST_ROWS = 2**16


@dataclass(frozen=True, slots=True)
class Floor:
    """A part on a chip.

    Attributes:
      name: of the part.
      cost: its bytes and operations.
      bytes_s, flops_s: seconds that each takes alone.
    """

    name: str
    cost: Cost
    bytes_s: float
    flops_s: float

    @property
    def seconds(self) -> float:
        return max(self.bytes_s, self.flops_s)

    @property
    def bound(self) -> str:
        """The resource that binds: "bandwidth" or "compute"."""
        return "bandwidth" if self.bytes_s >= self.flops_s else "compute"

    def as_json(self) -> dict:
        cost = self.cost
        return {
            "part": self.name,
            "bytes": cost.bytes,
            "weight_bytes": cost.weight_bytes,
            "kv_bytes": cost.kv_bytes,
            "flops": cost.flops,
            "intensity": cost.intensity,
            "floor_ms": 1e3 * self.seconds,
            "bound": self.bound,
        }


@dataclass(frozen=True, slots=True)
class Batch:
    """A decode step of `rows` sequences at its floor: every sequence gets a token each `step_s` seconds."""

    rows: int
    step_s: float
    bound: str

    @property
    def tokens_per_s(self) -> float:
        return self.rows / self.step_s

    def as_json(self) -> dict:
        step = {"rows": self.rows, "ms_per_token": 1e3 * self.step_s}
        return {**step, "tokens_per_s": self.tokens_per_s, "bound": self.bound}


@dataclass(frozen=True, slots=True)
class FormSteps:
    """Steps of texts with weights in one form (a dtype is the plain one), by their rows.

    Attributes:
      weight_bytes: read by a step of one row.
    """

    form: str
    weight_bytes: int
    steps: dict[int, float]

    def as_json(self) -> dict:
        floors = {str(rows): 1e3 * seconds for rows, seconds in self.steps.items()}
        return {"form": self.form, "weight_bytes": self.weight_bytes, "floor_ms": floors}


@dataclass(frozen=True, slots=True)
class Knee:
    """Rows from which on a larger batch buys less; None where that never comes.

    Attributes:
      kv_over_weights: keys and values are more bytes than weights: a step is twice as long as of one row.
      compute_over_bytes: operations take longer than bytes.
    """

    kv_over_weights: int | None
    compute_over_bytes: int | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A measured part and its floor on the measured bandwidth and rate."""

    floor: Floor
    seconds: float

    @property
    def times(self) -> float:
        return self.seconds / self.floor.seconds

    def as_json(self) -> dict:
        spent = {"measured_ms": 1e3 * self.seconds, "floor_ms": 1e3 * self.floor.seconds, "times_floor": self.times}
        return {"part": self.floor.name, **spent, "bound": self.floor.bound}


def cost_of(name: str, family: Family, dtype: str, context: int, quantize: str | None = None) -> Cost:
    """The cost of a part by its name: "encode I x C" (images, crops of each), "prefix I" or "prefix I x T" (of the
    longest length, or T positions), "prefill B x T" (behind the longest), "step B" or "tick B" of texts, "boxes B" a
    step that reads what tokens carry; behind a comma, in what way.

    Raises:
      ValueError: no such part.
    """
    match = re.fullmatch(r"(\w+) (\d+)(?: x (\d+))?", name.partition(", ")[0])
    kind, count, size = (match[1], int(match[2]), int(match[3] or 0)) if match else ("", 0, 0)
    if kind == "encode":
        return encode_cost(family, dtype, count * (size or 1), count, quantize)
    if kind == "prefix":
        return prefix_cost(family, dtype, count, quantize, size or None)
    if kind == "prefill":
        return prefill_cost(family, dtype, count, size, family.prefix_lengths[-1], quantize)
    if kind in ("step", "tick", "boxes"):
        return step_cost(family, dtype, count, context, kind == "boxes", quantize)
    raise ValueError(f"no costs are known of {name!r}")


def prefix_name(family: Family, images: int, length: int) -> str:
    """Of a part of the work, as `cost_of` reads it."""
    return f"prefix {images}" if len(family.prefix_lengths) == 1 else f"prefix {images} x {length}"


def floor_of(name: str, cost: Cost, chip: Chip, dtype: str) -> Floor:
    return Floor(name, cost, cost.bytes / chip.bandwidth, cost.flops / chip.rate(dtype))


def floors(
    family: Family, chip: Chip, dtype: str, rows: Sequence[int], context: int, quantize: str | None = None
) -> list[Floor]:
    """The parts of a request: an image of few to most crops, its prefix (of every length that is compiled), a question,
    and steps of `rows` sequences at `context` positions, of texts and, where tokens carry something, of boxes."""
    names = [f"encode 1 x {crops}" for crops in CROPS if crops <= family.max_crops]
    names += [*(prefix_name(family, 1, length) for length in family.prefix_lengths), f"prefill 1 x {PROMPT}"]
    kinds = ("step",) if family.readout is None else ("step", "boxes")
    names += [f"{kind} {batch}" for batch in rows for kind in kinds]
    return [floor_of(name, cost_of(name, family, dtype, context, quantize), chip, dtype) for name in names]


def batches(
    family: Family, chip: Chip, dtype: str, context: int, rows: Sequence[int] = BATCHES, quantize: str | None = None
) -> list[Batch]:
    """Batch economics of texts at the floor."""
    found = []
    for batch in rows:
        floor = floor_of("step", step_cost(family, dtype, batch, context, False, quantize), chip, dtype)
        found.append(Batch(batch, floor.seconds, floor.bound))
    return found


def forms(family: Family, chip: Chip, dtype: str, context: int, rows: Sequence[int]) -> list[FormSteps]:
    """The floors of steps by the form of the weights."""
    found = []
    for name in (dtype, *QUANTIZATIONS):
        quantize = None if name == dtype else name
        steps = {each.rows: each.step_s for each in batches(family, chip, dtype, context, rows, quantize)}
        read = step_cost(family, dtype, 1, context, False, quantize).weight_bytes
        found.append(FormSteps(name, read, steps))
    return found


def knee(family: Family, chip: Chip, dtype: str, context: int, quantize: str | None = None) -> Knee:
    """Where batches of texts stop being nearly free."""

    def cost(rows: int) -> Cost:
        return step_cost(family, dtype, rows, context, False, quantize)

    def computes(rows: int) -> bool:
        return floor_of("step", cost(rows), chip, dtype).bound == "compute"

    return Knee(_first_rows(lambda rows: cost(rows).kv_bytes > cost(rows).weight_bytes), _first_rows(computes))


def compare(family: Family, dtype: str, benchmark: Benchmark, quantize: str | None = None) -> list[Comparison]:
    """What was measured, against its floors."""
    found = []
    for name, seconds in benchmark.seconds.items():
        cost = cost_of(name, family, dtype, benchmark.context, quantize)
        found.append(Comparison(floor_of(name, cost, benchmark.chip, dtype), seconds))
    return found


def _first_rows(holds: Callable[[int], bool]) -> int | None:
    """The fewest rows for which a condition holds that then stays true."""
    rows = 1 + bisect.bisect_left(range(1, MOST_ROWS + 1), True, key=holds)
    return rows if rows <= MOST_ROWS else None
