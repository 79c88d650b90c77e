"""One model over several devices beside the same on one: what it answers, and how long a step takes."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxphoton.config.mesh import mesh_shape
from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.device import Device
from jaxphoton.layers.mesh import engine_split
from jaxphoton.measure.timing import interleaved
from scripts.gpu.equality import FEW_PROGRAMS, parameters, run
from scripts.gpu.kernels import backend_here
from scripts.gpu.load import Load, row_counts
from scripts.models import family_named

ROWS = (1, 8)
SIZES = (2, 4, 8)  # of meshes


def mesh(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Answers in float32 as the oracle has them on one device; then `mesh_steps`."""
    if len(jax.devices()) > 1:
        yield from _equality()
    yield from mesh_steps(args)


def mesh_steps(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Steps of the model, those of one device and of meshes by turns. `parameters_gb` are of one device."""
    devices = len(jax.devices())
    if devices < 2:
        yield {"skipped": f"{devices} device here; a mesh takes at least two"}
        return
    yield {"devices": devices}
    yield from _times(args.model, devices)


def mesh_of(shape: str) -> Mesh:
    """Of the first devices."""
    sizes = mesh_shape(shape)
    return Mesh(np.array(jax.devices()[: np.prod([*sizes.values()])]).reshape(tuple(sizes.values())), tuple(sizes))


def _equality() -> Iterator[dict[str, Any]]:
    """Tiny random models with heads of 64, without and with experts."""
    from jaxphoton.models.moondream import grammars
    from jaxphoton.models.moondream.family import MoondreamFamily
    from jaxphoton.oracle.oracle import Oracle
    from tests.engine import test_oracle_equality_moe as experts
    from tests.engine import tiny
    from tests.engine.comparison import Comparison

    table, failed = [], list[str]()
    for config, shape in ((tiny.CONFIG, "model=2"), (experts.CONFIG, "expert=2")):
        config = _wide(config)
        family, params = MoondreamFamily(config), parameters(config)
        comparison = Comparison(Oracle(params, family), grammars.grammars(config.tokenizer))
        engine = dataclasses.replace(tiny.ENGINE, kernels=backend_here(), **FEW_PROGRAMS)
        split = engine_split(mesh_of(shape), family.network.counts())
        placed = split.placed(params, family.network.specs(np.float32))
        programs = Programs(placed, family, engine, split=split)
        failed += [f"{shape}: {fault}" for fault in run(programs, comparison, "depth 2")]
        line = {"mesh": shape, "experts": config.text.moe is not None, "requests": comparison.compared}
        table.append({**line, "near_ties": len(comparison.near_ties)})
        yield {"mesh against oracle": table, "failed": failed}


def _wide(config: Any) -> Any:
    """With heads of 64 and experts that two devices can share, as kernels take them."""
    moe = config.text.moe and dataclasses.replace(config.text.moe, expert_inner_dim=32)
    return dataclasses.replace(
        config,
        vision=dataclasses.replace(config.vision, proj_out_dim=128),
        text=dataclasses.replace(config.text, dim=128, n_heads=2, n_kv_heads=2, moe=moe),
        region=dataclasses.replace(config.region, dim=128),
    )


def _times(model: str, devices: int) -> Iterator[dict[str, Any]]:
    rows = [count for count in ROWS if count in row_counts(model)]
    sizes = sorted({2, max(count for count in SIZES if count <= devices)})
    kinds = ("model", "expert") if "experts" in family_named(model).network.counts() else ("model",)
    shapes = (None, *(f"{kind}={size}" for kind in kinds for size in sizes))
    loads = {shape or "one device": Load(model, rows, build=partial(_steps, shape)) for shape in shapes}
    table = []
    for count in rows:
        launches = {shape: partial(_launch, *_step(load, count)) for shape, load in loads.items()}
        for shape, seconds in interleaved(launches).items():
            own = _bytes(loads[shape].programs.params)
            table.append({"mesh": shape, "rows": count, "device_ms": 1e3 * seconds, "parameters_gb": own / 1e9})
        yield {"steps": table}


class _Steps(Programs):
    """Of all programs those that a step takes, and the prefill before it."""

    def _jobs(self) -> dict[Any, Any]:
        return {key: job for key, job in super()._jobs().items() if key[0] in ("step", "prefill")}


def _steps(shape: str | None, params: Any, family: Any, *others: Any) -> tuple[Programs, str]:
    """Those of a mesh, or of one device, for `Load`."""
    if shape is None:
        return _Steps(params, family, *others), ""
    split = engine_split(mesh_of(shape), family.network.counts())
    placed = split.placed(params, family.network.specs(family.network.dtype(params)))
    return _Steps(placed, family, *others, split=split), ""


def _step(load: Load, rows: int) -> tuple[Device, Any]:
    device = Device(load.programs)
    return device, load.bench(rows).step_plan(device)


def _launch(device: Device, plan: Any) -> Any:
    output = device.step(plan)[1]
    # On CPUs that are several devices, programs that wait for each other's neighbours must not pile up.
    return jax.block_until_ready(output) if jax.default_backend() == "cpu" else output


def _bytes(params: Any) -> int:
    """Of one device."""
    leaves = jax.tree.leaves(params)
    return sum(int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize for leaf in leaves)
