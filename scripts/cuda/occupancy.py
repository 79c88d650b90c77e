"""What a kernel of ours takes of a multiprocessor: registers from ptxas, the rest from XLA's list of thunks."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from jaxphoton.engine.gpus import Gpu

WARP = 32  # threads
BLOCKS = {80: 32, 89: 24, 90: 32}  # of a multiprocessor, by compute capability (CUDA programming guide)
REGISTERS_AT_ONCE = 256  # a warp is given registers in such portions
PARTITIONS = 4  # of a multiprocessor: warps are spread evenly over them
RESERVED = 1024  # bytes of shared memory that CUDA takes for each block
_LAUNCH = re.compile(
    r"kCustomKernel\s*\[[^\]]*\]\s*(?P<name>\w+) grid: \[(?P<grid>[\d, ]+)\] threads: \[(?P<threads>[\d, ]+)\]"
    r"\s+shared_memory: (?P<shared>\d+)"
)
_PALLAS = re.compile(r'custom_call_target="__gpu\$xla\.gpu\.triton".*?op_name="[^"]*?(\w+)/pallas_call"')
_ENTRY = re.compile(r"\.entry (\w+)\(")
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")


@dataclass(frozen=True, slots=True)
class Usage:
    """One kernel with one launch.

    Attributes:
      kernel: its name.
      launches: how often the program launches it so.
      blocks, threads: of a launch, and of a block.
      registers: of a thread.
      spilled: bytes a thread stores to memory and loads again because registers are short.
      shared: bytes of shared memory of a block.
      occupancy: share of the warps that a multiprocessor can hold at once.
      waves: how often the launch fills all multiprocessors; below 1 some of it idles.
    """

    kernel: str
    launches: int
    blocks: int
    threads: int
    registers: int
    spilled: int
    shared: int
    occupancy: float
    waves: float


def usages(chip: Gpu, ptxas: Path, dump: Path, listing: str, hlo: str) -> list[Usage]:
    """Of every launch of a kernel of ours in a program: XLA's dump of it, its list of thunks and its HLO.

    None where the dump has no PTX: XLA of jax 0.12 writes none of some programs.
    """
    ours = set(_PALLAS.findall(hlo))
    compiled = _compiled(chip, ptxas, dump, ours)
    if not compiled:
        return []
    launches: dict[tuple[str, int, int, int], int] = {}
    for match in _LAUNCH.finditer(listing):
        if _plain(match["name"]) in ours:
            key = match["name"], _product(match["grid"]), _product(match["threads"]), int(match["shared"])
            launches[key] = launches.get(key, 0) + 1
    found = []
    for (name, blocks, threads, shared), count in launches.items():
        registers, spilled = compiled[name]
        resident = blocks_at_once(chip, threads, registers, shared)
        occupancy = resident * -(-threads // WARP) * WARP / chip.figure("threads_per_core_limit")
        waves = blocks / (resident * chip.figure("core_count")) if resident else math.inf
        found.append(Usage(name, count, blocks, threads, registers, spilled, shared, occupancy, waves))
    return sorted(found, key=lambda usage: usage.kernel)


def blocks_at_once(chip: Gpu, threads: int, registers: int, shared: int) -> int:
    """Blocks that a multiprocessor holds at once."""
    warps = -(-threads // WARP)
    a_warp = -(-registers * WARP // REGISTERS_AT_ONCE) * REGISTERS_AT_ONCE
    by_registers = chip.figure("registers_per_core_limit") // a_warp // PARTITIONS * PARTITIONS // warps
    by_shared = chip.figure("shared_memory_per_core") // (shared + RESERVED)
    by_threads = chip.figure("threads_per_core_limit") // (warps * WARP)
    return min(by_registers, by_shared, by_threads, BLOCKS[chip.capability])


def _compiled(chip: Gpu, ptxas: Path, dump: Path, ours: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Kernel -> (registers, bytes spilled) of the PTX in a dump."""
    found = {}
    for file in sorted(dump.glob("*.ptx")):
        entry = _ENTRY.search(text := file.read_text(encoding="utf-8"))
        target = re.search(r"\.target (\w+)", text)
        if entry is None or target is None or _plain(entry[1]) not in ours:
            continue
        command = [str(ptxas), "-v", f"-arch={target[1]}", str(file), "-o", "/dev/null"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stderr
        spills, registers = _SPILLS.search(told), _REGISTERS.search(told)
        assert spills and registers, f"ptxas said of {entry[1]}: {told}"
        found[entry[1]] = int(registers[1]), int(spills[1]) + int(spills[2])
    return found


def _plain(name: str) -> str:
    """Without the number that XLA gives to another kernel of the same name."""
    return re.sub(r"__\d+$", "", name)


def _product(sizes: str) -> int:
    return math.prod(int(size) for size in sizes.split(","))
