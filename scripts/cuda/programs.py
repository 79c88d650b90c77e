"""The device programs at full size, with the shapes and donations that the engine compiles them with."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxphoton.constraints import automaton
from jaxphoton.engine import programs
from jaxphoton.engine.buckets import table_width
from jaxphoton.engine.control import Prefill, Row
from jaxphoton.engine.programs import ProgramConfig
from jaxphoton.engine.state import PagedCache, RowState
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.models.moondream.reading import named_config
from jaxphoton.models.protocol import Kernels
from scripts.cuda.gpus import Gpu

PAGE, ROWS = 16, 32  # the engine's defaults; the pool holds ROWS whole contexts


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
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    donated: tuple[int, ...] = ()
    layers: int = 0
    weights: Any = None
    pool: PagedCache | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def step(chip: Gpu, rows: int, layers: int, model: str = "moondream2") -> list[Program]:
    """The decode step; Moondream 3's is called `experts-step`."""
    made = _Model(chip, layers, model)
    control = _ints(rows, len(Row) + made.config.table)
    name = "step" if made.family.config.text.moe is None else "experts-step"
    return [made.program(f"{name} {rows} rows", programs.step, (made.cache, made.rows, control))]


def halves(chip: Gpu, rows: int, layers: int) -> list[Program]:
    """The step in two, for rows whose next ids the host restricts."""
    model = _Model(chip, layers)
    control = _ints(rows, len(Row) + model.config.table)
    hidden = jax.ShapeDtypeStruct((rows, model.family.width), jnp.bfloat16)
    logits = jax.ShapeDtypeStruct((rows, model.family.vocab_size), jnp.float32)
    mask = jax.ShapeDtypeStruct((rows, model.mask_words), jnp.uint32)
    return [
        model.program(f"forward {rows} rows", programs.forward, (model.cache, model.rows, control), (1,)),
        model.program(f"sample {rows} rows", programs.sample, (model.rows, control, hidden, logits, mask), (1,)),
    ]


def prefill(chip: Gpu, rows: int, length: int, layers: int) -> list[Program]:
    """One chunk of prompts."""
    model = _Model(chip, layers)
    control = _ints(
        rows, len(Row) + model.config.table + model.mask_words + len(Prefill) + (1 + model.config.fed) * length
    )
    return [model.program(f"prefill {rows} x {length}", programs.prefill, (model.cache, model.rows, control))]


def prefix(chip: Gpu, images: int, layers: int) -> list[Program]:
    """Image prefixes."""
    model = _Model(chip, layers)
    family = model.family
    embeddings = jax.ShapeDtypeStruct((images, family.image_tokens, family.width), jnp.bfloat16)
    pages = _ints(images, -(-family.prefix_lengths[-1] // PAGE))
    return [model.program(f"prefix {images} image", programs.prefix, (model.cache, embeddings, pages), (1,))]


def encode(chip: Gpu, images: int, crops: int) -> list[Program]:
    """The vision encoder, with XLA's attention: cuDNN's needs wheels of its own."""
    family = MoondreamFamily(named_config("moondream2"))
    network = family.network
    params = network.encoder(network.abstract(jnp.bfloat16))
    packed = family.pack((), images, crops, lambda index: contextlib.nullcontext())
    shapes = (jax.ShapeDtypeStruct(array.shape, array.dtype) for array in packed)
    function = partial(network.encode, images=images, kernels=Kernels("reference", chip.target))
    arguments = (params, *shapes)
    # Without autotuning jax 0.10 finds no Triton tiling for a product whose rows are heads of 72; cuBLAS takes any.
    options = {"xla_gpu_enable_triton_gemm": False}
    return [Program(f"encode {crops} crops", function, arguments, weights=params, options=options)]


class _Model:
    """A model in bfloat16 with some of its layers, and its state, as shapes."""

    def __init__(self, chip: Gpu, layers: int, model: str = "moondream2"):
        full = named_config(model)
        self.layers = layers
        self.family = family = MoondreamFamily(
            dataclasses.replace(full, text=dataclasses.replace(full.text, n_layers=layers))
        )
        self.mask_words = -(-family.vocab_size // 32)
        tables = automaton.build(family.grammars, family.vocab_size)
        kernels, width = Kernels("triton", chip.target), table_width(family.max_context, PAGE)
        self.config = ProgramConfig(family, tables, width, self.mask_words, kernels)
        self.params = family.network.decoder(family.network.abstract(jnp.bfloat16))
        self.cache, self.rows = jax.eval_shape(self._state)

    def program(
        self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], donated: tuple[int, ...] = (1, 2)
    ) -> Program:
        pool = next((argument for argument in arguments if isinstance(argument, PagedCache)), None)
        return Program(
            name, partial(function, self.config), (self.params, *arguments), donated, self.layers, self.params, pool
        )

    def _state(self) -> tuple[PagedCache, RowState]:
        pages = 1 + ROWS * self.config.table
        cache = PagedCache.zeros(self.family.cache, pages, PAGE, jnp.bfloat16)
        return cache, RowState.zeros(ROWS, self.config.fed)


def _ints(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)
