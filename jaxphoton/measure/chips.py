"""Figures of GPUs for planning: from the vendors' public datasheets, or measured by `scripts/gpu_check.py`.

Datasheet rates are dense (without sparsity), bfloat16 with float32 accumulation, float32 outside the tensor cores (the
highest precision is what float32 means here). Memory is the datasheet's figure with a GB of 10^9 bytes; the difference
to GiB is about what error correction and the driver take. Programs reach 85 to 90% of a datasheet's bandwidth.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Chip:
    """One GPU.

    Attributes:
      name: as people write it.
      memory: bytes; None where it is not known.
      bandwidth: bytes a second between memory and chip.
      bfloat16, float32: operations a second of matrix products; None where not known.
      capability: CUDA compute capability.
      source: where the figures are from.
      nvlink: bytes a second to other GPUs, each way; None without NVLink to all of them.
    """

    name: str
    memory: int | None
    bandwidth: float
    bfloat16: float
    float32: float | None
    capability: str = ""
    source: str = "datasheet"
    nvlink: float | None = None

    def rate(self, dtype: str) -> float:
        """Operations a second in a dtype.

        Raises:
          ValueError: the rate is not known.
        """
        rate = self.float32 if dtype == "float32" else self.bfloat16
        if rate is None:
            raise ValueError(f"the {dtype} rate of {self.name} is not known")
        return rate


def _chip(
    name: str,
    gb: float,
    gb_s: float,
    bf16_tflop_s: float,
    fp32_tflop_s: float,
    capability: str,
    nvlink_gb_s: float | None = None,
) -> Chip:
    nvlink = None if nvlink_gb_s is None else nvlink_gb_s * 1e9
    rates = gb_s * 1e9, bf16_tflop_s * 1e12, fp32_tflop_s * 1e12
    return Chip(name, int(gb * 1e9), *rates, capability, nvlink=nvlink)


# Ascending by memory: `plan` names the first that holds a load.
CHIPS = (
    _chip("L4", 24, 300, 121, 30.3, "8.9"),
    _chip("A10", 24, 600, 125, 31.2, "8.6"),
    _chip("RTX 3090", 24, 936, 71, 35.6, "8.6"),
    _chip("RTX 4090", 24, 1008, 165, 82.6, "8.9"),
    _chip("RTX 5090", 32, 1792, 209, 104.8, "12.0"),
    _chip("A100 40GB", 40, 1555, 312, 19.5, "8.0", 300),
    _chip("L40S", 48, 864, 362, 91.6, "8.9"),
    _chip("A100 80GB", 80, 2039, 312, 19.5, "8.0", 300),
    _chip("H100 PCIe", 80, 2000, 756, 51, "9.0"),
    _chip("H100", 80, 3350, 989, 67, "9.0", 450),
    _chip("H200", 141, 4800, 989, 67, "9.0", 450),
    _chip("B200", 180, 8000, 2250, 75, "10.0", 900),
)


def find_chip(name: str) -> Chip:
    """The chip of that name; case, spaces, hyphens and a leading NVIDIA do not matter.

    Raises:
      ValueError: no such chip; the message names those there are.
    """
    wanted = _plain(name)
    for chip in CHIPS:
        if _plain(chip.name) == wanted:
            return chip
    raise ValueError(f"no figures for a GPU {name!r}; there are: {', '.join(chip.name for chip in CHIPS)}")


def _plain(name: str) -> str:
    return name.lower().removeprefix("nvidia").replace(" ", "").replace("-", "").replace("_", "")


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What `scripts/gpu_check.py` measured.

    Attributes:
      chip: copy bandwidth and rate of large bfloat16 products.
      parameters: of the model that was measured; None where no step was.
      context: positions a row in the steps.
      seconds: by the name of a part, as `roofline.cost_of` reads it; "tick N" is a pipelined step with its host work.
    """

    chip: Chip
    parameters: int | None
    context: int
    seconds: dict[str, float]


def read_benchmark(path: str | Path) -> Benchmark:
    """Reads a `gpu_check.json`; its `device` part is needed, `step` and `encode` may be missing or unfinished.

    Raises:
      ValueError: not such a file.
    """
    try:
        data: Any = json.loads(Path(path).read_text(encoding="utf-8"))
        device, step = data["device"], data.get("step", {})
        rates = 1e9 * device["copy_gb_s"], 1e12 * device["matmul_tflop_s"]
        chip = Chip(device["device"], None, *rates, float32=None, source=f"measured, {Path(path).name}")
        spent = {line["program"]: line["ms"] for line in data.get("encode", {}).get("programs", ())}
        for name, column in (("step", "device_ms"), ("tick", "depth2_ms")):
            lines = (*step.get("steps", ()), *step.get("ticks", ()))
            spent |= {f"{name} {line['rows']}": line[column] for line in lines if column in line}
        seconds = {name: ms / 1e3 for name, ms in spent.items()}
        return Benchmark(chip, step.get("parameters"), step.get("context", 0), seconds)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        fault = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path}: not a benchmark of scripts/gpu_check.py: {fault}") from error
