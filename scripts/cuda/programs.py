"""The device programs at full size, with the shapes and donations that the engine compiles them with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxphoton.config import EngineConfig
from jaxphoton.config.mesh import mesh_shape
from jaxphoton.config.quantization import quantization
from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.gpus import Gpu
from jaxphoton.engine.places import Absent, options
from jaxphoton.engine.state import PagedCache
from jaxphoton.layers.mesh import Split, engine_split
from jaxphoton.measure.cost_model import prefix_cost
from jaxphoton.models.forms import quantized_tree
from jaxphoton.models.protocol import Family, Kernels
from scripts.models import family_named

ROWS = 32  # the pool holds so many whole contexts


@dataclass(frozen=True, slots=True)
class Program:
    """What is compiled, and what the checks must know of it.

    Attributes:
      name: in the table.
      function: of `arguments`, a tuple of trees of jax.ShapeDtypeStruct.
      donated: places of the donated arguments.
      layers: text layers; 0 where they are not counted.
      weights: parameters among the arguments.
      pool: keys and values among the arguments.
      options: XLA's, for this program alone.
      needed: multiplications and additions that it cannot do without; 0 where they are not compared.
      mesh: of the GPUs that run it together; `weights` and `pool` are what one of them has then.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    donated: tuple[int, ...] = ()
    layers: int = 0
    weights: Any = None
    pool: PagedCache | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    needed: int = 0
    mesh: Mesh | None = None


def step(
    chip: Gpu,
    rows: int,
    layers: int,
    model: str = "moondream2",
    form: str = "xla",
    experts: bool = True,
    quantize: str | None = None,
    adapters: int = 0,
    mesh: str | None = None,
) -> list[Program]:
    """The decode step; the name of one whose layers are in another form than XLA's begins with the form. `adapters` are
    their slots; `quantize` the weights, as the loaders do; `mesh` as on the command line ("model=2,expert=2")."""
    shapes = _Shapes(
        chip, layers, model, rows, form=form, experts=experts, quantize=quantize, adapter_slots=adapters, mesh=mesh
    )
    name = f"{'' if form == 'xla' else f'{form}-'}{shapes.kind}{'adapters-' if adapters else ''}step {rows} rows"
    return [shapes.program(name, ("step", rows))]


def halves(chip: Gpu, rows: int, layers: int) -> list[Program]:
    """The step in two, for rows whose next ids the host restricts."""
    shapes = _Shapes(chip, layers, rows=rows)
    return [shapes.program(f"{name} {rows} rows", (name, rows)) for name in ("forward", "sample")]


def prefill(
    chip: Gpu,
    rows: int,
    length: int,
    layers: int,
    model: str = "moondream2",
    quantize: str | None = None,
    mesh: str | None = None,
) -> list[Program]:
    """One chunk of prompts."""
    shapes = _Shapes(chip, layers, model, quantize=quantize, prefill_rows=(rows,), prefill_lengths=(length,), mesh=mesh)
    return [shapes.program(f"{shapes.kind}prefill {rows} x {length}", ("prefill", rows, length))]


def prefix(
    chip: Gpu,
    images: int,
    layers: int,
    model: str = "moondream2",
    quantize: str | None = None,
    adapters: int = 0,
    mesh: str | None = None,
) -> list[Program]:
    """Image prefixes; `adapters` and `mesh` as in `step`."""
    crops = images * min(2, family_named(model).max_crops)
    shapes = _Shapes(
        chip, layers, model, quantize=quantize, adapter_slots=adapters, vision=((images, crops),), mesh=mesh
    )
    name = f"{shapes.kind}{'adapters-' if adapters else ''}prefix {images} image{'s' * (images > 1)}"
    program = shapes.program(name, ("prefix", images, shapes.family.prefix_lengths[-1]))
    needed = 0 if mesh else prefix_cost(shapes.family, "bfloat16", images).flops
    return [dataclasses.replace(program, needed=needed)]


def encode(chip: Gpu, images: int, crops: int, mesh: str | None = None, model: str = "moondream2") -> list[Program]:
    """The vision encoder, with XLA's attention: cuDNN's needs wheels of its own."""
    shapes = _Shapes(chip, 1, model, backend="reference", vision=((images, crops),), mesh=mesh)
    program = shapes.program(f"{shapes.kind}encode {crops} crops", ("vision", images, crops))
    # Without autotuning jax 0.10 finds no Triton tiling for a product whose rows are heads of 72; cuBLAS takes any.
    options = {**program.options, "xla_gpu_enable_triton_gemm": False}
    return [dataclasses.replace(program, layers=0, options=options)]


class _Shapes(Programs):
    """The engine's programs of a model in bfloat16 with some of its layers, for a GPU that is not here: functions and
    arguments, not compiled."""

    def __init__(
        self,
        chip: Gpu,
        layers: int,
        model: str = "moondream2",
        rows: int = ROWS,
        backend: str = "triton",
        form: str = "xla",
        experts: bool = True,
        quantize: str | None = None,
        mesh: str | None = None,
        **settings: Any,
    ):
        """`rows` of a step and the form of its layers; without `experts` all layers of a model are its dense ones;
        `quantize` the weights, as the loaders do; `mesh` is of such chips, for weights in bfloat16; `settings` are
        buckets of the other programs, and more, as in EngineConfig."""
        family = family_named(model, layers, experts)
        self._mesh = None if mesh is None else chip.mesh(mesh_shape(mesh))
        split = None if self._mesh is None else engine_split(self._mesh, family.network.counts())
        # What names of programs begin with.
        self.kind = _kind(family)
        self.kind = f"{quantize}-{self.kind}" if quantize else self.kind
        self.kind = f"mesh-{self.kind}" if mesh else self.kind
        self._layers, self._step, self._kernels = layers, (rows,), Kernels(backend, chip.target)
        super().__init__(
            _parameters(family, quantize, split),
            family,
            EngineConfig(max_rows=ROWS, step_rows=(ROWS,), step_form=form, host_masks=True, **settings),
            place=Absent(chip, self._mesh),
            split=split,
        )

    def _compile_to_fit(self) -> dict:
        self.program_config = dataclasses.replace(self.program_config, kernels=self._kernels)
        self.buckets = dataclasses.replace(self.buckets, step=self._step)
        self.pages = 1 + ROWS * self.table
        self._shapes = self._jobs()
        return {}

    def program(self, name: str, key: tuple) -> Program:
        function, arguments, donated = self._shapes[key]
        pool = next((argument for argument in arguments if isinstance(argument, PagedCache)), None)
        weights = arguments[0][0] if self.engine.adapter_slots and key[0] != "vision" else arguments[0]
        if self._mesh is None:
            return Program(name, function, arguments, donated, self._layers, weights, pool)
        weights, pool = jax.tree.map(_share, (weights, pool))
        shape = ",".join(f"{axis}={size}" for axis, size in self._mesh.shape.items() if size > 1)
        chosen = options(self._kernels.target, self._mesh.size)
        name = f"{name} on {shape}"
        return Program(name, function, arguments, donated, self._layers, weights, pool, chosen, mesh=self._mesh)


def _kind(family: Family) -> str:
    """What is special about its programs."""
    if family.name != "moondream":
        return f"{family.name}-"
    text = family.config.text
    return "experts-" if text.moe else "tau-" if text.tau_attn else ""


def _parameters(family: Family, quantize: str | None, split: Split | None) -> Any:
    """As the loaders make them, on this machine or on a mesh."""
    if split is not None:
        return split.shapes(family.network.specs(jnp.bfloat16))
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    tree = quantized_tree(family, jnp.bfloat16, quantization(quantize))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), tree)


def _share(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """What one device of the mesh has of a leaf."""
    return jax.ShapeDtypeStruct(leaf.sharding.shard_shape(leaf.shape), leaf.dtype)
