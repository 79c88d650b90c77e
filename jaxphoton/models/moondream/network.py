"""Text decoder: parallel attention and MLP blocks behind one LayerNorm each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxphoton.layers import moe
from jaxphoton.layers.attention import Attend
from jaxphoton.layers.fused import StepParts
from jaxphoton.layers.mlp import gelu_exact, gelu_tanh
from jaxphoton.layers.norms import layer_norm
from jaxphoton.layers.rope import rotary_frequencies, rotary_tables, rotate
from jaxphoton.layers.sharded import place, sum_apart, total
from jaxphoton.layers.tracing import traced_once
from jaxphoton.layers.weight import Weight, add_bias, linear, matmul
from jaxphoton.models.moondream.config import TextConfig
from jaxphoton.models.moondream.params import TextLayer, TextParams
from kernels_pallas.dispatch import Index


@jax.tree_util.register_dataclass
@dataclass
class Trace:
    """What the layers of one forward pass computed on the way.

    Attributes:
      hidden: the input, then every block's output, [B, T, D].
      tau: of each layer with tau attention, the factors of q and of v, float32 [B, T, 2, N].
      routes: of each layer with experts.
    """

    hidden: list[jax.Array] = field(default_factory=list)
    tau: list[jax.Array] = field(default_factory=list)
    routes: list[moe.Route] = field(default_factory=list)

    def add(self, x: jax.Array, noted: Trace) -> None:
        """A layer's output, and what it noted itself."""
        self.hidden.append(x)
        self.tau += noted.tau
        self.routes += noted.routes


def forward(
    params: TextParams,
    config: TextConfig,
    x: jax.Array,
    positions: jax.Array,
    attend: Attend,
    cache: Any,
    experts: moe.Experts = moe.PLAIN,
    trace: Trace | None = None,
    step: StepParts | None = None,
) -> tuple[jax.Array, Any]:
    """Runs all blocks.

    Args:
      x: input embeddings [B, T, D].
      positions: int32 [B, T], counted from BOS = 0; they set the rotary angles and the tau factors.
      attend: writes k and v of one layer into the cache and attends.
      cache: passed through `attend`.
      experts: how they are chosen and computed, where there are any.
      trace: filled with what the layers computed.
      step: how the parts of dense layers, and input product and attention in all, are computed where T is 1; None for
        the plain form of any T.

    Returns:
      (hidden [B, T, D] after the last block, before the final LayerNorm; cache).
    """
    trace = Trace() if trace is None else trace
    tables = _tables(params, config, positions)
    trace.hidden.append(x)
    done = 0
    if step is not None and params.in_b is not None:
        x, cache = _dense_step(params, config, x, tables, attend, cache, trace, step)
        done = params.in_b.shape[0]

    def block(own: TextLayer, index: Index, x: jax.Array, cache: Any) -> tuple[jax.Array, Any, Trace]:
        h, noted = layer_norm(x, params.ln[index]), Trace()
        if own.experts is None:
            x, cache = _dense(params, config, own, index, x, h, tables, attend, cache, noted)
        else:
            x, cache = _experts(params, config, own, index, x, h, tables, attend, cache, experts, noted, step)
        return x, cache, noted

    block = traced_once(block, x)
    for index in range(done, config.n_layers):
        with jax.named_scope(f"layer_{index}"):
            x, cache, noted = block(params.layers[index], index, x, cache)
        trace.add(x, noted)
    return x, cache


def final_norm(params: TextParams, hidden: jax.Array) -> jax.Array:
    """The final LayerNorm, which only the vocabulary head reads through."""
    return layer_norm(hidden, params.post_ln)


def logits(params: TextParams, hidden: jax.Array) -> jax.Array:
    """Last-block hidden states [..., D] -> float32 logits [..., V]."""
    with jax.named_scope("lm_head"):
        return linear(final_norm(params, hidden), params.lm_head_w, params.lm_head_b, out=jnp.float32)


@dataclass(frozen=True, slots=True)
class _Tables:
    """What depends on positions alone: the cos and sin of `rotary_tables`, and the tau term of `_tau_positions`."""

    cos: jax.Array
    sin: jax.Array
    tau: jax.Array | None


def _tables(params: TextParams, config: TextConfig, positions: jax.Array) -> _Tables:
    tau = None if params.tau_alpha is None else _tau_positions(params.tau_alpha, positions)
    return _Tables(*rotary_tables(positions, rotary_frequencies(config.rotary_dim, config.rope_theta)), tau)


def _dense(
    params: TextParams,
    config: TextConfig,
    layer: TextLayer,
    index: Index,
    x: jax.Array,
    h: jax.Array,
    tables: _Tables,
    attend: Attend,
    cache: Any,
    trace: Trace,
) -> tuple[jax.Array, Any]:
    """x behind a dense layer, h being its norm: attention and MLP in one product each way."""
    with jax.named_scope("input"):
        both = linear(h, layer.in_w, params.in_b[index])
    with jax.named_scope("attention"):
        # On a mesh it is a device's share of both.
        width = both.shape[-1] * config.qkv_dim // (config.qkv_dim + config.ff_dim)
        attended, cache = _attended(layer, config, index, both[..., :width], tables, attend, cache, trace)
    with jax.named_scope("output"):
        fed = jnp.concatenate([attended, gelu_tanh(both[..., width:])], axis=-1)
        # Summed in float32 and rounded once, as by the kernels of a step.
        out = matmul(fed, layer.out_w, out=jnp.float32)
        if layer.direct is not None:
            out += layer.direct.delta(h)
        bias = jnp.sum(params.out_b[index].astype(jnp.float32), axis=0)
        return (x.astype(jnp.float32) + add_bias(out, bias)).astype(x.dtype), cache


def _dense_step(
    params: TextParams,
    config: TextConfig,
    x: jax.Array,
    tables: _Tables,
    attend: Attend,
    cache: Any,
    trace: Trace,
    step: StepParts,
) -> tuple[jax.Array, Any]:
    """x [B, 1, D] behind all dense layers. What a layer adds stays in parts until the next one's norm sums them."""
    x, last = x[:, 0], params.in_b.shape[0] - 1

    def block(
        own: TextLayer, index: Index, x: jax.Array, h: jax.Array, cache: Any, is_last: bool
    ) -> tuple[jax.Array, jax.Array, Any, Trace]:
        noted = Trace()
        u = step.input(h, own.in_w, params.in_b, index, config.qkv_dim)
        attended, cache = _step_attended(own, config, index, u, tables, attend, cache, noted, step)
        parts = step.output(attended, u, own.out_w)
        if own.direct is not None:
            parts = jnp.concatenate([parts, own.direct.delta(h)[None]])
        if is_last:
            return step.end(x, parts, params.out_b, index), h, cache, noted
        return *step.norm(x, parts, params.out_b, params.ln, index, index + 1), cache, noted

    block, h = traced_once(block, x, static_argnames="is_last"), layer_norm(x, params.ln[0])
    for index in range(last + 1):
        with jax.named_scope(f"layer_{index}"):
            x, h, cache, noted = block(params.layers[index], index, x, h, cache, is_last=index == last)
        trace.add(x[:, None], noted)
    return x[:, None], cache


def _experts(
    params: TextParams,
    config: TextConfig,
    layer: TextLayer,
    index: Index,
    x: jax.Array,
    h: jax.Array,
    tables: _Tables,
    attend: Attend,
    cache: Any,
    experts: moe.Experts,
    trace: Trace,
    step: StepParts | None,
) -> tuple[jax.Array, Any]:
    """x behind a layer with experts, h being its norm."""
    assert config.moe is not None and layer.experts is not None
    row = index - config.moe.start_layer
    with jax.named_scope("attention"):
        if step is None:
            qkv = linear(h, layer.in_w, params.qkv_b[row])
            out, cache = _attended(layer, config, index, qkv, tables, attend, cache, trace)
        else:
            qkv = step.input(h[:, 0], layer.in_w, params.qkv_b, row)
            out, cache = _step_attended(layer, config, index, qkv, tables, attend, cache, trace, step)
            out = out[:, None]
        own, axes = sum_apart(layer.out_w)
        attended = matmul(out, own)
    with jax.named_scope("mlp"):
        route = experts.route(layer.experts.router_w, params.router_b, row, config.moe.experts_per_token, h)
        trace.routes.append(route)
        mixed = moe.apply(layer.experts, route, h, experts.mix)
        if set(axes) == set(layer.experts.summed):  # in any order, as rules and meshes have them
            both = total(attended + mixed, axes)
        else:
            both = total(attended, axes) + total(mixed, layer.experts.summed)
        return x + add_bias(both, params.proj_b[row]), cache


def _attended(
    layer: TextLayer,
    config: TextConfig,
    index: Index,
    qkv: jax.Array,
    tables: _Tables,
    attend: Attend,
    cache: Any,
    trace: Trace,
) -> tuple[jax.Array, Any]:
    """qkv [B, T, Q] -> (what its heads attended to, [B, T, N H]; cache)."""
    q, k, v = _split_heads(config, qkv)
    if (tau := _layer_tau(layer, index, qkv, tables, trace)) is not None:
        q, v = _scaled(q, tau[:, :, 0]), _scaled(v, tau[:, :, 1])
    q, k = (rotate(part, tables.cos, tables.sin) for part in (q, k))
    out, cache = attend(index, q, k, v, cache)
    return out.reshape(*qkv.shape[:2], -1), cache


def _step_attended(
    layer: TextLayer,
    config: TextConfig,
    index: Index,
    u: jax.Array,
    tables: _Tables,
    attend: Attend,
    cache: Any,
    trace: Trace,
    step: StepParts,
) -> tuple[jax.Array, Any]:
    """The same of one position a row, from u [B, Q + F] with anything behind q, k and v: ([B, N H], cache)."""
    if step.attend is None:
        qkv = u[:, None, : config.qkv_dim]
        out, cache = _attended(layer, config, index, qkv, tables, attend, cache, trace)
        return out[:, 0], cache
    factors = None
    if tables.tau is not None and layer.tau_w is not None:
        factors = step.factor_parts(u, layer.tau_w), tables.tau[:, :, 0]
        trace.tau.append(_factors(jnp.sum(factors[0], axis=0)[:, None], tables.tau[index]))
    return step.attend(index, u, tables.cos[:, 0, 0], tables.sin[:, 0, 0], factors, cache)


def _layer_tau(layer: TextLayer, index: Index, qkv: jax.Array, tables: _Tables, trace: Trace) -> jax.Array | None:
    """`_tau` of a layer, None without tau attention."""
    if tables.tau is None or layer.tau_w is None:
        return None
    trace.tau.append(tau := _tau(layer.tau_w, qkv, tables.tau[index]))
    return tau


def _tau_positions(alpha: jax.Array, positions: jax.Array) -> jax.Array:
    """alpha float32 [L, N], positions [B, T] -> 1 + (sigmoid(alpha * ln(position + 1)) - 0.5), float32 [L, B, T, N].

    float32 in every mode: bfloat16 cannot tell position 257 from 256.
    """
    logs = jnp.log1p(positions.astype(jnp.float32))
    return jax.nn.sigmoid(alpha[:, None, None, :] * logs[None, :, :, None]) + 0.5


def _tau(weight: Weight, qkv: jax.Array, positional: jax.Array) -> jax.Array:
    """The factors of q and v, float32 [B, T, 2, N], of tau attention: tanh(W gelu(qkv)) + the term of the position.

    weight [2 N, Q] with the rows of q first, qkv [B, T, Q] before the rotation, positional float32 [B, T, N].
    """
    product = matmul(gelu_exact(qkv), weight, out=jnp.float32)
    if (heads := positional.shape[-1]) != product.shape[-1] // 2:
        # Every factor reads all heads; a device of a mesh needs those of its own.
        halves = product.reshape(*product.shape[:2], 2, -1)
        start = place(sum_apart(weight)[1]) * heads
        product = lax.dynamic_slice_in_dim(halves, start, heads, axis=3).reshape(*product.shape[:2], -1)
    return _factors(product, positional)


def _factors(product: jax.Array, positional: jax.Array) -> jax.Array:
    """The same from the product, float32 [B, T, 2 N]."""
    return jnp.tanh(product).reshape(*product.shape[:2], 2, -1) + positional[:, :, None, :]


def _scaled(heads: jax.Array, factor: jax.Array) -> jax.Array:
    """heads [B, T, N, H] times factor float32 [B, T, N], rounded once."""
    return (heads.astype(jnp.float32) * factor[..., None]).astype(heads.dtype)


def _split_heads(config: TextConfig, qkv: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """qkv [B, T, (N + 2 K) H], ordered q | k | v -> q [B, T, N, H], k and v [B, T, K, H]."""
    heads = qkv.reshape(*qkv.shape[:2], -1, config.head_dim)
    group = config.n_heads // config.n_kv_heads
    kv = heads.shape[2] // (group + 2)  # all of them, or those of a device of a mesh
    n = group * kv
    return heads[:, :, :n], heads[:, :, n : n + kv], heads[:, :, n + kv :]
