"""The operations of kernels_pallas in one form: cases, arguments by name, and calls chained inside one program."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxphoton.models.protocol import Family

NAMES = (
    "paged_attention",
    "step_attention",
    "tau_product",
    "prefix_attention",
    "masked_sample",
    "moe_decode",
    "moe_prefill",
    "moe_route",
    "residual_norm",
    "input_product",
    "output_product",
    "quant_matmul",
)
LLAMA = ("paged_attention", "step_attention", "prefix_attention", "masked_sample")  # of what is no Moondream
CHANGED = {"step_attention": ("k_pool", "v_pool")}  # what an operation updates in place, and gives back last
LINKS = 12  # calls in a chain, each on a layer of its own
Arrays = dict[str, Any]


def function_of(name: str) -> Callable[..., Any]:
    return getattr(importlib.import_module(f"kernels_pallas.{name}.api"), name)


def names_for(family: Family) -> tuple[str, ...]:
    """The operations that a family's programs have."""
    return NAMES if family.name == "moondream" else LLAMA


def cases_of(name: str, small: bool, family: Family | None = None) -> tuple[list[Any], list[Any]]:
    """(cases to compare, cases to time): all and the real ones; a few small ones on machines without a GPU.

    Real cases are compared in float32 too. Of a family that is no Moondream the real ones are those of its sizes.
    """
    module = importlib.import_module(f"kernels_pallas.{name}.cases")
    if small:
        return list(module.SMALL[:2]), list(module.SMALL[:1])
    real = list(module.REAL)
    if family is not None and family.name != "moondream":
        real = [case for case in real if _is_of(case, real, family)]
    wide = [_in_float32(case) for case in real if getattr(case, "dtype", "") == "bfloat16"]
    return [*module.SMALL, *real, *wide], real


def _is_of(case: Any, cases: list[Any], family: Family) -> bool:
    """Whether a case has a family's heads, or samples from as many ids, or as few more as any case has."""
    if hasattr(case, "head_dim"):
        sizes = family.heads, family.cache.n_kv_heads, family.cache.head_dim
        return (case.heads, case.kv_heads, case.head_dim) == sizes
    enough = [each.columns for each in cases if each.columns >= family.vocab_size]
    return case.columns == min(enough, default=0)


def _in_float32(case: Any) -> Any:
    return dataclasses.replace(case, name=f"{case.name}-float32", dtype="float32")


def arguments_of(name: str, case: Any, shapes: bool = False) -> tuple[Arrays, dict[str, int]]:
    """Arrays, and what is static (the layer, the stream), by name; with `shapes` their shapes alone, where they are
    told without the arrays."""
    made = case.inputs() if hasattr(case, "inputs") else case.abstract() if shapes else case.make()
    if isinstance(made, tuple):
        positional, named = made
        made = dict(zip(inspect.signature(function_of(name)).parameters, positional, strict=False)) | named
    if hasattr(case, "layer"):
        made["layer"] = case.layer
    if "heads" in inspect.signature(function_of(name)).parameters:
        made["heads"] = case.heads
    static = {key: value for key, value in made.items() if isinstance(value, int)}
    return {key: value for key, value in made.items() if key not in static and value is not None}, static


def call(name: str, static: dict[str, int], backend: str) -> Callable[[Arrays], Any]:
    """A function of the arrays alone, to jit."""
    function = function_of(name)
    return lambda arrays: function(**arrays, **static, backend=backend)


def in_float32(arrays: Arrays) -> Arrays:
    """bfloat16 widened: what the reference computes from these is the truth."""
    return {key: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x for key, x in arrays.items()}


def spread(arrays: Arrays, static: dict[str, int], layers: int = LINKS) -> Arrays:
    """What the case reads, the layer of a pool or the matrix, copied to many, so that a chain does not find it in the
    cache."""
    if "matrix" in arrays:
        return arrays | {"matrix": [jnp.array(arrays["matrix"], copy=True) for _ in range(layers)]}
    if "k_pool" not in arrays:
        return arrays
    old, taken = arrays["k_pool"].shape[0], static["layer"]

    def repeat(x: Any) -> jax.Array:
        return jnp.repeat(jnp.asarray(x[taken : taken + 1]), layers, axis=0)

    names = {"k_pool", "v_pool"} | {key for key in ("k_scale", "v_scale") if key in arrays and len(arrays[key]) == old}
    return {key: repeat(x) if key in names else x for key, x in arrays.items()}


def chain(run: Callable[[Arrays, int], Any], links: int = LINKS) -> Callable[[Arrays], Any]:
    """`links` calls in one program, `run(arrays, link)`, each waiting for the one before."""

    def chained(arrays: Arrays) -> Any:
        out = None
        for link in range(links):
            out = run(arrays, link)
            arrays = arrays | following(arrays, out)
        return out

    return chained


def following(arrays: Arrays, out: Any) -> Arrays:
    """What the next call of a chain takes from this one: an attention's output is its query, or the head of its
    product; a token moves its counter; mixed experts are its input, for other experts, lest the cache holds their
    matrices; of a product as many columns as it takes; of factors those in front; a routed token is weighed."""
    if "q" in arrays:
        return {"q": out}
    if "u" in arrays and "k_pool" in arrays:
        a, k_pool, v_pool = out
        return {"u": jnp.concatenate([a, arrays["u"][:, a.shape[1] :]], axis=1), "k_pool": k_pool, "v_pool": v_pool}
    if "parts" in arrays:
        return {"x": out[0]}
    if "a" in arrays:
        return {"a": out[0][:, : arrays["a"].shape[1]].astype(arrays["a"].dtype)}
    if "u" in arrays:
        return {"u": jnp.concatenate([out[0].astype(arrays["u"].dtype), arrays["u"][:, out.shape[2] :]], axis=1)}
    if "matrix" in arrays:
        x = arrays["x"]
        return {"x": jnp.concatenate([out[:, : x.shape[1]], x[:, out.shape[1] :]], axis=1)}
    if "router" in arrays:
        return {"x": arrays["x"] * out[2][:, :1].astype(arrays["x"].dtype)}
    if "x" in arrays:
        experts, count = arrays["experts"], arrays["up"].shape[0]
        others = jnp.where(experts < 0, experts, (experts + experts.shape[1]) % count)
        return {"x": out, "experts": others}
    return {"index": arrays["index"] + (out[0] & 1)}


def on_layer(name: str, static: dict[str, int], backend: str) -> Callable[[Arrays, int], Any]:
    """For `chain`: link n reads layer n of the pool, or matrix n."""
    function = function_of(name)

    def run(arrays: Arrays, link: int) -> Any:
        moved = {"layer": link} if "k_pool" in arrays else {}
        own = {"matrix": arrays["matrix"][link]} if "matrix" in arrays else {}
        return function(**(arrays | own), **(static | moved), backend=backend)

    return run


def whole(name: str, out: Any) -> Any:
    """The result of an operation whose backends give it in different parts; of a router the logits chosen, since near
    ties are anybody's; pools without page 0 and what nobody has written, which may be anything."""
    if name == "moe_route":
        logits, experts, weights = out
        return logits, jnp.take_along_axis(logits, experts, axis=1), weights
    if name == "step_attention":
        a, *pools = out
        return (a, *(jnp.nan_to_num(pool[:, 1:].astype(jnp.float32)) for pool in pools))
    return jnp.sum(out, axis=0) if name in ("output_product", "tau_product") else out


def error(out: Any, truth: Any, needed: Any = None) -> float:
    """max |a - b| / max |b|, of several results the largest. Of a sampled (token, log-probability): the largest
    difference of log-probabilities where the tokens agree; see `other_tokens` for the rest."""
    if not _sampled(out):
        return max(_distance(a, b) for a, b in zip(jax.tree.leaves(out), jax.tree.leaves(truth), strict=True))
    (a, a_logprob), (b, b_logprob) = ((np.asarray(x) for x in pair) for pair in (out, truth))
    same = (a == b) & (np.ones(len(a), bool) if needed is None else np.asarray(needed))
    both_nan = np.isnan(a_logprob) & np.isnan(b_logprob)
    return float(np.max(np.where(same & ~both_nan, np.abs(a_logprob - b_logprob), 0.0), initial=0.0))


def other_tokens(out: Any, truth: Any, needed: Any = None) -> int:
    """Rows whose sampled tokens differ: near ties, or a fault."""
    if not _sampled(out):
        return 0
    different = np.asarray(out[0]) != np.asarray(truth[0])
    return int(np.sum(different if needed is None else different & np.asarray(needed)))


def _sampled(out: Any) -> bool:
    return isinstance(out, (tuple, list)) and jnp.issubdtype(out[0].dtype, jnp.integer)


def _distance(a: Any, b: Any) -> float:
    a, b = (np.asarray(x, np.float32) for x in (a, b))
    return float(np.max(np.abs(a - b), initial=0.0) / max(float(np.max(np.abs(b), initial=0.0)), 1e-30))
