"""Mixture of experts: a router chooses a few experts for every token, their outputs are summed by its weights.

Expert e computes down[e] @ (gelu_exact(u) * (g + 1)) with u | g = up[e] @ x; no biases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from jaxphoton.layers.adapters import Pairs
from jaxphoton.layers.grouped import Grouped
from jaxphoton.layers.mlp import gelu_exact
from jaxphoton.layers.weight import Dense, Leaf, RowScaled, Weight, einsum
from kernels_pallas.dispatch import Index, Target
from kernels_pallas.moe_decode import moe_decode
from kernels_pallas.moe_prefill import moe_prefill
from kernels_pallas.moe_route import moe_route

CHUNK = 256  # tokens of one pass over all experts: enough to be bound by arithmetic, few enough for little memory
# Choices an expert, of all that the router knows, up to which a decode kernel takes them, which needs no order; it
# reads an expert again for every 16. Experts split over devices expect as many choices each as they would together; at
# worst all choices are of one device's experts, which it then reads again from its cache.
FEW = 8


@struct.dataclass
class ExpertPairs:
    """Adapters in slots beside the experts' matrices: the pairs of every expert of all layers, and who takes which."""

    fc1: Pairs  # a [L, E, S, R, D], b [L, E, 2 * inner, S, R]; added before the activation
    fc2: Pairs  # a [L, E, S, R, inner], b [L, E, D, S, R]
    slots: Leaf  # int32 [B], of rows of the batch, -1 for none
    layer: int = struct.field(pytree_node=False)  # among the L

    def of_layer(self) -> tuple[Pairs, Pairs]:
        fc1, fc2 = (Pairs(pairs.a[self.layer], pairs.b[self.layer]) for pairs in (self.fc1, self.fc2))
        return fc1, fc2


@struct.dataclass
class ExpertParams:
    """Router and experts of one layer; no biases but the router's, which stands apart.

    A device may hold a part of the experts alone, and choices among them (`own_choices`), but all of the router.
    """

    router_w: Weight  # [E, D]
    fc1_w: Weight  # [E, 2 * inner, D]: the rows under the activation first, then those of the factor
    fc2_w: Weight  # [E, D, inner]
    adapters: ExpertPairs | None = None
    # Inside a program of a mesh: the axes that experts are split over, and those over which their outputs are summed.
    share: tuple[str, ...] = struct.field(pytree_node=False, default=())
    summed: tuple[str, ...] = struct.field(pytree_node=False, default=())


@struct.dataclass
class Route:
    """Where tokens go.

    Attributes:
      logits: float32 [..., E], of all experts.
      experts: int32 [..., k], the chosen ones, best first; of equals the first.
      weights: float32 [..., k], the softmax over their logits alone.
    """

    logits: jax.Array
    experts: jax.Array
    weights: jax.Array


# route(weight [E, D], biases [R, E], row, chosen, h [..., D]) -> Route: `route` with some backend.
Router = Callable[[Weight, jax.Array, Index, int, jax.Array], Route]
# mix(params, x [T, D], experts int32 [T, k], weights float32 [T, k]) -> [T, D]: how the chosen experts are computed;
# slots of adapters are those of tokens. A choice of -1 is of an expert that is not here: it adds nothing, whatever its
# weight.
Mix = Callable[[ExpertParams, jax.Array, jax.Array, jax.Array], jax.Array]


@dataclass(frozen=True, slots=True)
class Experts:
    """How experts are chosen, and how the chosen ones are computed."""

    route: Router
    mix: Mix


def route(
    weight: Weight,
    biases: jax.Array,
    row: Index,
    chosen: int,
    h: jax.Array,
    *,
    backend: str | None = "reference",
    target: Target | None = None,
) -> Route:
    """Router weight [E, D] and a row of the layers' biases [R, E] on h [..., D]; logits and softmax in float32.

    `backend` and `target` as in `kernels_pallas.dispatch.choose`.
    """
    x, router = h.reshape(-1, h.shape[-1]), weight.dense(h.dtype).matrix
    results = moe_route(x, router, biases, top=chosen, row=row, backend=backend, target=target)
    return Route(*(result.reshape(*h.shape[:-1], -1) for result in results))


def gap(route: Route) -> jax.Array:
    """float32 [...]: how far the first expert left out is behind the last one chosen; inf where none is left out."""
    count, chosen = route.logits.shape[-1], route.experts.shape[-1]
    if chosen == count:
        return jnp.full(route.logits.shape[:-1], jnp.inf, jnp.float32)
    best = lax.top_k(route.logits, chosen + 1)[0]
    return best[..., -2] - best[..., -1]


def own_choices(experts: jax.Array, first: jax.Array | int, count: int) -> jax.Array:
    """Choices among all experts as choices among a device's, int32 [...] both; -1 for those that are not here.

    A device has `count` experts, from number `first` on.
    """
    own = experts - first
    return jnp.where((own >= 0) & (own < count), own, -1).astype(jnp.int32)


def apply(params: ExpertParams, route: Route, h: jax.Array, mix: Mix) -> jax.Array:
    """h [B, ..., D] -> the weighted sum of the chosen experts [B, ..., D]; on a mesh of those that this device has."""
    chosen = route.experts.shape[-1]
    tokens = h.reshape(-1, h.shape[-1])
    if (adapters := params.adapters) is not None:
        of_rows = adapters.slots.reshape(-1, *(1,) * (h.ndim - 2))
        slots = jnp.broadcast_to(of_rows, h.shape[:-1]).reshape(-1)
        params = replace(params, adapters=replace(adapters, slots=slots))
    experts = route.experts.reshape(-1, chosen)
    if params.share:
        count = jax.tree.leaves(params.fc1_w)[0].shape[0]
        experts = own_choices(experts, lax.axis_index(params.share) * count, count)
    return mix(params, tokens, experts, route.weights.reshape(-1, chosen)).reshape(h.shape)


def mix(
    params: ExpertParams,
    x: jax.Array,
    experts: jax.Array,
    weights: jax.Array,
    *,
    backend: str | None = None,
    target: Target | None = None,
) -> jax.Array:
    """A `Mix` that computes the chosen experts of every token and no others.

    Experts in a form that the kernels do not know compute every token.
    `backend` and `target` as in `kernels_pallas.dispatch.choose`.
    """
    up, down = params.fc1_w, params.fc2_w
    if not _known(up) or not _known(down) or up.matrix.dtype != down.matrix.dtype:
        return mix_dense(params, x, experts, weights)
    fc1, fc2 = (weight.numbers if isinstance(weight, Grouped) else weight.matrix for weight in (up, down))
    few = experts.size <= FEW * params.router_w.dense(x.dtype).matrix.shape[0]
    beside: dict[str, Any] = {"up_scale": _scale(up), "down_scale": _scale(down)}
    if (adapters := params.adapters) is not None:
        first, second = adapters.fc1, adapters.fc2
        beside |= {"slots": adapters.slots, "up_a": first.a, "up_b": first.b, "down_a": second.a, "down_b": second.b}
        beside["layer"] = adapters.layer
    chosen = moe_decode if few else moe_prefill
    return chosen(x, fc1, fc2, experts, weights, **beside, backend=backend, target=target)


def _known(weight: Weight) -> TypeGuard[Dense | RowScaled | Grouped]:
    """Whether the kernels know the form."""
    return isinstance(weight, Dense | RowScaled) or (isinstance(weight, Grouped) and weight.zero is None)


def _scale(weight: Dense | RowScaled | Grouped) -> jax.Array | None:
    return None if isinstance(weight, Dense) else weight.scale


def mix_dense(params: ExpertParams, x: jax.Array, experts: jax.Array, weights: jax.Array) -> jax.Array:
    """The plain `Mix`: every expert on every token, the chosen ones summed."""
    done: list[jax.Array] = []
    for start in range(0, x.shape[0], CHUNK):
        part = slice(start, start + CHUNK)
        # One pass behind the other, in the memory of one. And none joined with another product of x, as XLA likes to:
        # for that it would write all float8 weights down in x's dtype.
        tokens, done = lax.optimization_barrier((x[part], done))
        adapters = params.adapters
        here = params if adapters is None else replace(params, adapters=replace(adapters, slots=adapters.slots[part]))
        done = [*done, _dense(here, tokens, experts[part], weights[part])]
    return jnp.concatenate(done)


def _dense(params: ExpertParams, x: jax.Array, experts: jax.Array, weights: jax.Array) -> jax.Array:
    adapters = params.adapters
    fc1, fc2 = (None, None) if adapters is None else adapters.of_layer()
    hidden = params.fc1_w.einsum("td,eid->eti", x, out=jnp.float32, product=x.dtype)
    if adapters is not None and fc1 is not None:
        hidden += _delta(fc1, adapters.slots, x, "td,esrd->etsr")
    u, g = jnp.split(hidden, 2, axis=-1)
    fed = (gelu_exact(u) * (g + 1)).astype(x.dtype)
    out = params.fc2_w.einsum("eti,edi->etd", fed, out=jnp.float32)
    if adapters is not None and fc2 is not None:
        out += _delta(fc2, adapters.slots, fed, "eti,esri->etsr")
    # [E, T, k]: which choice of a token an expert is.
    chosen = experts[None] == jnp.arange(out.shape[0], dtype=jnp.int32)[:, None, None]
    share = jnp.sum(jnp.where(chosen, weights[None], 0.0), axis=-1)
    # An expert that was not chosen may overflow: it is selected out, not multiplied by zero.
    kept = jnp.where(jnp.any(chosen, axis=-1)[..., None], out * share[..., None], 0.0)
    return jnp.sum(kept, axis=0).astype(x.dtype)


def _delta(pairs: Pairs, slots: jax.Array, x: jax.Array, narrow: str) -> jax.Array:
    """What the pairs of every expert add, float32 [E, T, rows], for slots int32 [T]; `narrow` is the product with a."""
    down = einsum(narrow, x, pairs.a, out=jnp.float32)
    own = slots[None, :, None, None] == lax.iota(jnp.int32, down.shape[2])[None, None, :, None]
    return einsum("etsr,efsr->etf", jnp.where(own, down, 0).astype(x.dtype), pairs.b, out=jnp.float32)


PLAIN = Experts(route, mix_dense)


def by_kernels(backend: str | None = None, target: Target | None = None) -> Experts:
    """Experts by the kernels, as `kernels_pallas.dispatch.choose` takes them."""
    return Experts(partial(route, backend=backend, target=target), partial(mix, backend=backend, target=target))
