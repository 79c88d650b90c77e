"""The device programs at full size, with the shapes and donations that the engine compiles them with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxphoton.constraints import automaton
from jaxphoton.engine import programs
from jaxphoton.engine.layout import Prefill, Row, table_width
from jaxphoton.engine.programs import Family
from jaxphoton.engine.state import Kernels, PagedCache, RowState
from jaxphoton.models.moondream import grammars as registry
from jaxphoton.models.moondream import vision
from jaxphoton.models.moondream.params import abstract
from jaxphoton.models.moondream.reading import named_config
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
    control = _ints(rows, len(Row) + made.family.table)
    name = "step" if made.config.text.moe is None else "experts-step"
    return [made.program(f"{name} {rows} rows", programs.step, (made.cache, made.rows, control))]


def halves(chip: Gpu, rows: int, layers: int) -> list[Program]:
    """The step in two, for rows whose next ids the host restricts."""
    model = _Model(chip, layers)
    control = _ints(rows, len(Row) + model.family.table)
    text = model.config.text
    hidden = jax.ShapeDtypeStruct((rows, text.dim), jnp.bfloat16)
    logits = jax.ShapeDtypeStruct((rows, text.vocab_size), jnp.float32)
    mask = jax.ShapeDtypeStruct((rows, model.mask_words), jnp.uint32)
    return [
        model.program(f"forward {rows} rows", programs.forward, (model.cache, model.rows, control), (1,)),
        model.program(f"sample {rows} rows", programs.sample, (model.rows, control, hidden, logits, mask), (1,)),
    ]


def prefill(chip: Gpu, rows: int, length: int, layers: int) -> list[Program]:
    """One chunk of prompts."""
    model = _Model(chip, layers)
    control = _ints(rows, len(Row) + model.family.table + model.mask_words + len(Prefill) + 4 * length)
    return [model.program(f"prefill {rows} x {length}", programs.prefill, (model.cache, model.rows, control))]


def prefix(chip: Gpu, images: int, layers: int) -> list[Program]:
    """Image prefixes."""
    model = _Model(chip, layers)
    text = model.config.text
    embeddings = jax.ShapeDtypeStruct((images, text.prefix_attn - 1, text.dim), jnp.bfloat16)
    pages = _ints(images, -(-text.prefix_attn // PAGE))
    return [model.program(f"prefix {images} image", programs.prefix, (model.cache, embeddings, pages), (1,))]


def encode(chip: Gpu, images: int, crops: int) -> list[Program]:
    """The vision encoder, with XLA's attention: cuDNN's needs wheels of its own."""
    config = named_config("moondream2").vision
    params = abstract(named_config("moondream2")).vision
    side = jax.ShapeDtypeStruct((crops, config.grid, config.grid), jnp.float32)
    pixels = jax.ShapeDtypeStruct((crops, config.crop_size, config.crop_size, 3), jnp.uint8)

    def function(params: Any, pixels: Any, rows: Any, columns: Any, image: Any) -> jax.Array:
        return vision.embed_images(params, config, pixels, rows, columns, image, images)

    arguments = (params, pixels, side, side, _ints(crops))
    # Without autotuning jax 0.10 finds no Triton tiling for a product whose rows are heads of 72; cuBLAS takes any.
    options = {"xla_gpu_enable_triton_gemm": False}
    return [Program(f"encode {crops} crops", function, arguments, weights=params, options=options)]


class _Model:
    """A model in bfloat16 with some of its layers, and its state, as shapes."""

    def __init__(self, chip: Gpu, layers: int, model: str = "moondream2"):
        full = named_config(model)
        self.layers = layers
        self.config = dataclasses.replace(full, text=dataclasses.replace(full.text, n_layers=layers))
        text = self.config.text
        self.mask_words = -(-text.vocab_size // 32)
        tables = automaton.build(registry.grammars(self.config.tokenizer), text.vocab_size)
        kernels = Kernels("triton", chip.target)
        self.family = Family(self.config, tables, table_width(text.max_context, PAGE), self.mask_words, kernels)
        # As in the engine: the text programs do not take the vision leaves.
        self.params = dataclasses.replace(abstract(self.config), vision=None)
        self.cache, self.rows = jax.eval_shape(self._state)

    def program(
        self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], donated: tuple[int, ...] = (1, 2)
    ) -> Program:
        pool = next((argument for argument in arguments if isinstance(argument, PagedCache)), None)
        return Program(
            name, partial(function, self.family), (self.params, *arguments), donated, self.layers, self.params, pool
        )

    def _state(self) -> tuple[PagedCache, RowState]:
        pages = 1 + ROWS * self.family.table
        return PagedCache.zeros(self.config.text, pages, PAGE, jnp.bfloat16), RowState.zeros(ROWS)


def _ints(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)
