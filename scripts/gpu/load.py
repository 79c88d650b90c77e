"""A model of full size with random weights on the device, and decode ticks of it."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxphoton.config import EngineConfig, ModelConfig, named_config
from jaxphoton.engine.control import TokenReader
from jaxphoton.engine.device import Device, Programs, limits_of
from jaxphoton.engine.pages import PageAllocator
from jaxphoton.engine.pipeline import Pipeline
from jaxphoton.engine.request import Request
from jaxphoton.engine.scheduler import Scheduler
from jaxphoton.engine.sequence import Sequence as Running
from jaxphoton.model.params import Params, abstract, count
from jaxphoton.model.region import coordinate_values, size_values
from jaxphoton.prompt.templates import Prompt
from jaxphoton.skills import automaton
from jaxphoton.skills.grammar import Grammar, State
from jaxphoton.skills.settings import Settings

CONTEXT = 850  # positions a row: an image, a question, some text
WARM_UP, TICKS = 10, 100


def model_config(name: str) -> ModelConfig:
    """Moondream 2, or with "small" its shape in miniature, for machines without a GPU."""
    config = named_config("moondream2")
    if name == "moondream2":
        return config
    vision = dataclasses.replace(
        config.vision, enc_dim=32, enc_n_layers=2, enc_ff_dim=64, enc_n_heads=2, proj_out_dim=64, proj_inner_dim=64
    )
    text = dataclasses.replace(config.text, dim=64, ff_dim=128, n_layers=2, n_heads=4, n_kv_heads=4, vocab_size=512)
    region = dataclasses.replace(config.region, dim=64, inner_dim=64)
    return dataclasses.replace(config, vision=vision, text=text, region=region)


class Load:
    """Random weights and compiled programs; `tick_seconds` runs the engine's loop over them."""

    def __init__(self, name: str, rows: Sequence[int]):
        self.config = model_config(name)
        dtype = jnp.float32 if jax.devices()[0].platform == "cpu" else jnp.bfloat16
        params = random_params(self.config, dtype)
        self.parameters = count(params)
        grammars = {"free": Grammar({"free": State()})}
        tables = automaton.build(grammars, self.config.text.vocab_size)
        engine = EngineConfig(
            max_rows=max(rows),
            step_rows=tuple(sorted({max(2, n) for n in rows})),
            prefill_rows=(max(rows),),
            prefill_lengths=(128,),
            vision=((1, 2),),
            kv_pages=1 + max(rows) * (CONTEXT // 16 + 16),
            host_masks=False,
        )
        self.programs = Programs(params, self.config, tables, engine)

    def step_bytes(self, rows: int) -> int:
        """Bytes a decode step must read: text weights and the keys and values of all positions."""
        cache = jax.eval_shape(self.programs.fresh_state)[0]
        position = 2 * cache.k.size // (cache.k.shape[1] * cache.k.shape[2]) * cache.k.dtype.itemsize
        text = self.programs.text_params.text
        # The embedding table is read by the row.
        weights = sum(leaf.nbytes for leaf in jax.tree.leaves(text)) - text.wte.nbytes
        return weights + rows * CONTEXT * position

    def tick_seconds(self, rows: int, depth: int) -> float:
        """Median seconds of a decode tick of `rows` sequences of about CONTEXT positions."""
        engine = self.programs.engine
        region, ids = self.config.region, self.config.tokenizer
        scheduler = Scheduler(limits_of(engine, self.programs.buckets), PageAllocator(self.programs.pages))
        reader = TokenReader(ids.size_id, coordinate_values(region), size_values(region))
        pipeline = Pipeline(Device(self.programs), scheduler, reader, depth, on_finish=lambda sequence: None)
        prompt = Prompt(tuple(np.random.default_rng(0).integers(20, 500, CONTEXT - TICKS // 2).tolist()))
        settings = Settings(temperature=0.0, max_tokens=WARM_UP + TICKS + 4, seed=0)
        for _ in range(rows):
            text = self.config.text
            scheduler.add(
                Running(Request(prompt, "free", settings), text.prefix_attn, engine.page_size, text.max_context)
            )
        for _ in range(WARM_UP):
            pipeline.tick()
        spent = []
        for _ in range(TICKS - WARM_UP):
            start = time.perf_counter()
            pipeline.tick()
            spent.append(time.perf_counter() - start)
        return statistics.median(spent)


def random_params(config: ModelConfig, dtype: Any) -> Params:
    """Normal weights of standard deviation 0.02, made on the device leaf by leaf."""
    shapes, tree = jax.tree.flatten(abstract(config, dtype))
    draw = jax.jit(
        lambda key, shape, dtype: (0.02 * jax.random.normal(key, shape)).astype(dtype),
        static_argnames=("shape", "dtype"),
    )
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return jax.tree.unflatten(tree, [draw(k, s.shape, s.dtype) for k, s in zip(keys, shapes, strict=True)])


def copy_bandwidth() -> float:
    """Bytes a second of a device copy, read and written bytes counted."""
    size = 2**30 if jax.devices()[0].platform != "cpu" else 2**24
    x = jnp.zeros(size, jnp.int8)
    return 2 * size / median_time(jax.jit(lambda x: x + jnp.int8(1)), x)


def median_time(function: Callable, *arguments: Any, runs: int = 20) -> float:
    """Median seconds of a call, its result waited for."""
    spent = []
    for run in range(runs + 3):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        if run >= 3:
            spent.append(time.perf_counter() - start)
    return statistics.median(spent)
