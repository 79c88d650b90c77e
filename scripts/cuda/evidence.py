"""What is read off a compiled program: plain data that crosses from the compiling process to the judging one."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from jaxphoton.engine.gpus import Gpu
from jaxphoton.layers.grouped import PACKED
from jaxphoton.layers.spec import nbytes
from scripts.cuda import buffers, occupancy, plugin, reads, thunks
from scripts.cuda.collectives import collectives
from scripts.cuda.operations import operations
from scripts.cuda.programs import Program

LARGE = 2**22  # elements of a weight; smaller ones are cheap to copy, and some activations have their dimensions
_PARAMETER = re.compile(r" = \w+\[(?P<sizes>[\d,]*)\]\S* parameter\(\d+\).*?op_name=\"(?P<name>[^\"]+)\"")
NAMED = 8  # offenders that a message names


@dataclass(frozen=True, slots=True)
class Evidence:
    """One program on one chip; bytes unless said.

    Attributes:
      error: why it does not compile; the rest is empty then.
      top: thunks inside of no other, by kind.
      stray: the first of those that are not command buffers.
      kernels: thunks that occupy the GPU whenever the program runs.
      branches: those in branches of conditionals, which may run.
      busiest: the names most of them have.
      temporary: memory it needs besides arguments and results.
      aliased: results that lie in donated arguments.
      pool: keys and values among the arguments.
      largest: the largest values in memory of the program's own.
      pool_copies: those among all of them as large as a layer of the pool.
      weight_copies: those of a weight's dimensions.
      operations: multiplications and additions of its products, as `operations` counts them.
      needed: those that it cannot do without; 0 where they are not compared.
      weight_reads: bytes of weights that the kernels take which always run, over those of the same weights once; 0 for
        none. What only branches take, and lines of a table, do not count.
      weight_share: bytes of all those weights, with their factors, over those of the large ones in bfloat16.
      read_again: the weights that several kernels take.
      usage: `occupancy.Usage` of every launch of a kernel of kernels_pallas, as plain data.
      devices: that run it together.
      collectives: what they send each other, by kind.
      sent: the largest of those.
      most_sent: bytes of the largest.
      split, held: of the weights that XLA takes and the mesh shares out: bytes of all of them, and of what one device
        has of them.
      whole: of the weights that every device has.
    """

    program: str
    chip: str
    layers: int
    seconds: float
    error: str = ""
    top: Mapping[str, int] = field(default_factory=dict)
    stray: tuple[str, ...] = ()
    kernels: int = 0
    branches: int = 0
    busiest: tuple[str, ...] = ()
    temporary: int = 0
    aliased: int = 0
    pool: int = 0
    largest: tuple[str, ...] = ()
    pool_copies: tuple[str, ...] = ()
    weight_copies: tuple[str, ...] = ()
    operations: int = 0
    needed: int = 0
    weight_reads: float = 0.0
    weight_share: float = 0.0
    read_again: tuple[str, ...] = ()
    usage: tuple[Mapping[str, Any], ...] = ()
    devices: int = 1
    collectives: Mapping[str, int] = field(default_factory=dict)
    sent: tuple[str, ...] = ()
    most_sent: int = 0
    split: int = 0
    held: int = 0
    whole: int = 0


def read(program: Program, chip: Gpu, dump: Path, memory: Any) -> dict[str, Any]:
    """Everything of `Evidence` that XLA tells: its dump of this program in a folder, and its memory analysis.

    A value counts as copied if it lies in memory of the program's own and is as large as a layer of the pool, or has
    the dimensions of a weight in any order. An update in place does neither.
    """
    # Of programs too small for a command buffer there is only the first listing.
    listed = _dumped(dump, ".thunk_sequence_after_thunk_passes.txt", ".thunk_sequence.txt")
    listing = thunks.parse(listed)
    always, branches = thunks.kernels(listing)
    hlo = _dumped(dump, "_after_optimizations.txt")
    values = buffers.parse(_dumped(dump, "after_optimizations-buffer-assignment.txt"), hlo)
    large = [leaf for leaf in jax.tree.leaves(program.weights) if leaf.size >= LARGE]
    weights = {tuple(sorted(leaf.shape)) for leaf in large}
    pools = [leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(program.pool)]
    layer = max(pools, default=0) // max(program.layers, 1)
    return {
        "top": thunks.top_level(listing),
        "stray": _named(t for t in listing if not t.inside and t.kind != "kCommandBuffer"),
        "kernels": always,
        "branches": branches,
        "busiest": thunks.names(listing, NAMED),
        "temporary": memory.temp_size_in_bytes,
        "aliased": memory.alias_size_in_bytes,
        "pool": sum(pools),
        "largest": _named(values),
        "pool_copies": _named(v for v in values if pools and v.bytes >= layer),
        "operations": operations(hlo) if program.needed else 0,
        "needed": program.needed,
        "weight_copies": _named(v for v in values if tuple(sorted(v.dimensions)) in weights),
        **_reads(hlo, jax.tree.leaves(program.weights)),
        **(_sent(hlo) | _shares(program, hlo) if program.mesh else {}),
        "usage": tuple(map(dataclasses.asdict, occupancy.usages(chip, plugin.ptxas(), dump, listed, hlo))),
    }


def _reads(hlo: str, leaves: Sequence[jax.ShapeDtypeStruct]) -> dict[str, Any]:
    by_shape = {reads.shape_of(leaf): leaf for leaf in leaves}
    found = [(name, by_shape[shape], count) for name, shape, count in reads.weight_reads(hlo, by_shape) if count]
    large = [(name, leaf, count) for name, leaf, count in found if leaf.size >= LARGE]
    once = sum(nbytes(leaf) for _, leaf, _ in large)
    in_bfloat16 = sum(2 * leaf.size * (1 + (leaf.dtype == PACKED)) for _, leaf, _ in large)
    return {
        "weight_reads": sum(nbytes(leaf) * count for _, leaf, count in large) / once if once else 0.0,
        "weight_share": sum(nbytes(leaf) for _, leaf, _ in found) / in_bfloat16 if once else 0.0,
        "read_again": _named(f"{name}, by {count} kernels" for name, _, count in large if count > 1),
    }


def _sent(hlo: str) -> dict[str, Any]:
    found = collectives(hlo)
    return {
        "collectives": dict(sorted(Counter(one.kind for one in found).items())),
        "sent": _named(found),
        "most_sent": max((one.bytes for one in found), default=0),
    }


def _shares(program: Program, hlo: str) -> dict[str, Any]:
    """What a device of a mesh has of the weights, as XLA takes them; without those that the program does not use."""
    assert program.mesh is not None
    taken = {match["name"]: match for match in _PARAMETER.finditer(hlo.partition("\nENTRY ")[2])}
    shares = {"split": 0, "held": 0, "whole": 0}
    for path, leaf in jax.tree_util.tree_flatten_with_path(program.arguments[0])[0]:
        if parameter := taken.get(f"operands[0]{jax.tree_util.keystr(path)}"):
            sizes = (int(size) for size in parameter["sizes"].split(",") if size)
            own = nbytes(jax.ShapeDtypeStruct(tuple(sizes), leaf.dtype))
            if leaf.sharding.is_fully_replicated:
                shares["whole"] += own
            else:
                shares["split"] += nbytes(leaf)
                shares["held"] += own
    return {"devices": program.mesh.size, **shares}


def _named(offenders: Any) -> tuple[str, ...]:
    names = [str(offender) for offender in offenders]
    return tuple(names[:NAMED] + ([f"and {len(names) - NAMED} more"] if len(names) > NAMED else []))


def _dumped(dump: Path, *endings: str) -> str:
    """The first of the files with these endings that XLA wrote."""
    for ending in endings:
        for file in dump.glob(f"*{ending}"):
            return file.read_text(encoding="utf-8")
    raise FileNotFoundError(f"XLA dumped no {endings[0]}; there are {sorted(p.name for p in dump.iterdir())[-9:]}")
