"""The models as pure functions over a pytree of parameters, for JAX users: jit them, differentiate them, shard them.

docs/jax-users.md walks through them. `params` is a `Params` of `jaxphoton.models.moondream`, `config` its settings,
static.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.typing import DTypeLike

from jaxphoton.layers.adapters import put
from jaxphoton.layers.cache import DenseCache, dense_attend
from jaxphoton.layers.mesh import RULES, OwnOrder, check_names
from jaxphoton.layers.spec import Spec, axis_names, like
from jaxphoton.models.adapters import Adapter
from jaxphoton.models.moondream import adapters as text_adapters
from jaxphoton.models.moondream import inputs, region, vision
from jaxphoton.models.moondream import network as text
from jaxphoton.models.moondream.adapters import TextPairs
from jaxphoton.models.moondream.config import ModelConfig
from jaxphoton.models.moondream.device import MoondreamNetwork
from jaxphoton.models.moondream.params import Form, Params, specs
from jaxphoton.models.moondream.pictures import crop_owners
from jaxphoton.models.moondream.prompts import Prompt


def encode_image(
    params: Params, config: ModelConfig, pixels: jax.Array, rows: jax.Array, columns: jax.Array
) -> jax.Array:
    """One picture's crops -> image embeddings [grid * grid, D].

    Args:
      pixels: uint8 [C, S, S, 3], the global crop first (`jaxphoton.models.moondream.pictures.cut_crops`); alone it is
        the only tile, too.
      rows, columns: float32 [C, grid, grid] (`jaxphoton.models.moondream.pooling.pooling_matrices` of the tiling).
    """
    owner = jnp.asarray(crop_owners(pixels.shape[0]))
    return vision.embed_images(params.vision, config.vision, pixels, rows, columns, owner, images=1)[0]


def prompt_inputs(config: ModelConfig, prompt: Prompt, has_image: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the positions of BOS, the image and the prompt are fed with.

    Returns ids int32 [T], kinds int32 [T] (`jaxphoton.models.moondream.inputs`) and values float32 [T, 2].
    """
    patches = config.vision.image_tokens if has_image else 0
    ids = np.array([config.tokenizer.bos_id] + [0] * patches + list(prompt.ids), np.int32)
    kinds = np.full(len(ids), inputs.TOKEN, np.int32)
    kinds[1 : 1 + patches] = inputs.IMAGE
    values = np.zeros((len(ids), 2), np.float32)
    for place, value in prompt.values:
        kinds[1 + patches + place], values[1 + patches + place] = fed_as(value)
    return ids, kinds, values


def fed_as(value: tuple[float, ...] | None) -> tuple[int, np.ndarray]:
    """Kind and values float32 [2] of a position that carries `value`: (coordinate,), (width, height) or None."""
    if value is None:
        return inputs.TOKEN, np.zeros(2, np.float32)
    kind = inputs.COORDINATE if len(value) == 1 else inputs.SIZE
    return kind, np.array((*value, 0.0)[:2], np.float32)


def prefill(
    params: Params,
    config: ModelConfig,
    ids: jax.Array,
    kinds: jax.Array,
    values: jax.Array,
    image: jax.Array | None = None,
    trace: text.Trace | None = None,
) -> tuple[jax.Array, DenseCache]:
    """Runs whole prompts.

    Args:
      ids, kinds: int32 [B, T]; values: float32 [B, T, 2]; as `prompt_inputs` makes them.
      image: embeddings [B, grid * grid, D] of prompts with an image.
      trace: filled with what the layers computed.

    Returns:
      (hidden states [B, T, D] before the final LayerNorm, cache of `max_context` positions).
    """
    rows, tokens = ids.shape
    positions = jnp.broadcast_to(jnp.arange(tokens, dtype=jnp.int32)[None], (rows, tokens))
    prefix = jnp.full(rows, 0 if image is None else config.text.prefix_attn, jnp.int32)
    heads, length = (config.text.n_kv_heads, config.text.head_dim), config.text.max_context
    cache = DenseCache.zeros(config.text.n_layers, *heads, rows, length, params.text.wte.dtype)
    x = inputs.embed(params, ids, kinds, values, image)
    attend = dense_attend(positions, prefix, length)
    return text.forward(params.text, config.text, x, positions, attend, cache, trace=trace)


def decode_step(
    params: Params,
    config: ModelConfig,
    cache: DenseCache,
    ids: jax.Array,
    kinds: jax.Array,
    values: jax.Array,
    positions: jax.Array,
    prefix_length: jax.Array,
    trace: text.Trace | None = None,
) -> tuple[jax.Array, DenseCache]:
    """Feeds one position a row.

    Args:
      ids, kinds, positions: int32 [B]; values: float32 [B, 2].
      prefix_length: int32 [B], `config.text.prefix_attn` for rows with an image, else 0.
      trace: filled with what the layers computed.

    Returns:
      (hidden states [B, D] before the final LayerNorm, cache).
    """
    at = positions[:, None]
    x = inputs.embed(params, ids[:, None], kinds[:, None], values[:, None])
    attend = dense_attend(at, prefix_length, config.text.max_context)
    hidden, cache = text.forward(params.text, config.text, x, at, attend, cache, trace=trace)
    return hidden[:, 0], cache


def read(params: Params, config: ModelConfig, hidden: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What hidden states [B, D] predict, float32: logits [B, V], coordinate bins [B, bins], size bins [B, 2, bins]."""
    return text.logits(params.text, hidden), *region.decode(params.region, config.region, hidden)


def shardings(
    config: ModelConfig,
    mesh: Mesh,
    rules: Mapping[str, tuple[str, ...]] | None = None,
    params: Params | None = None,
) -> Params:
    """A jax.sharding.NamedSharding for every parameter, for `jax.device_put`, `jax.jit` and loading.

    The parameters stay in the order that all functions here take them in; under `jax.jit` XLA moves what must move.
    Those of a `Model` on a mesh are in another, which only its engine understands.

    Args:
      mesh: with axes of any names; one that no rule names splits no parameter, as is right for a batch.
      rules: logical axis -> axes of the mesh that it is split over, none for a whole one; in place of those entries of
        `jaxphoton.layers.mesh.RULES`, which know the names "model" and "expert".
      params: arrays or shapes; needed where matrices are in few bits, or the model has scales of float8 keys.

    Raises:
      MeshError: the mesh does not divide what a rule gives it, with the sizes that would; or a rule names an axis that
        there is not.
    """
    scaled = params is not None and params.text.kv_scale is not None
    plain, split = specs(config, form=Form(kv_scales=scaled)), own_order(config, mesh, rules)
    if params is None:
        return split.shardings(plain)
    stored = like(plain, params)

    def sharding(leaf: Spec, cut: Spec) -> NamedSharding:
        # Factors of groups that lie on several devices are on each of them.
        whole = replace(leaf, axes=(*leaf.axes[:-1], None))
        return split.sharding(leaf if leaf.shape == cut.shape else whole)

    return jax.tree.map(sharding, stored, split.regrouped(stored, plain))


def own_order(config: ModelConfig, mesh: Mesh, rules: Mapping[str, tuple[str, ...]] | None = None) -> OwnOrder:
    """The same for `jaxphoton.weights.load.load_model`, which then reads for each device its share alone.

    Arguments, and what is raised, as of `shardings`.
    """
    leaves: list[Spec] = jax.tree.leaves(specs(config))
    known = RULES.keys() | {name for leaf in leaves for axis in leaf.axes for name in axis_names(axis)}
    check_names(rules, known)
    return OwnOrder(mesh, MoondreamNetwork(config).counts(), rules)


def with_adapters(params: Params, config: ModelConfig, pool: TextPairs, slots: jax.Array) -> Params:
    """Parameters with which `prefill` and `decode_step` add, for each row of the batch, the adapter of its slot.

    Args:
      pool: adapters in slots, of `adapter_pool` or `new_adapter`; it can be differentiated like any parameter.
      slots: int32 [B]; -1 for none.
    """
    return text_adapters.with_adapters(params, config.text, pool, slots)


def adapter_pool(
    config: ModelConfig, adapters: Sequence[Adapter], dtype: DTypeLike = jnp.float32, rank: int = 1
) -> TextPairs:
    """Adapters in slots, in their order, in the type of the parameters; `rank` is the least of the slots.

    Raises:
      WeightsError: one does not fit the model.
    """
    rank = max(rank, *(text_adapters.rank_of(config.text, adapter) for adapter in adapters))
    shapes = text_adapters.abstract(config.text, dtype, len(adapters), rank)
    pool = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    for slot, adapter in enumerate(adapters):
        pool = put(pool, text_adapters.slot(config.text, adapter, dtype, rank), jnp.int32(slot))
    return pool


def new_adapter(config: ModelConfig, key: jax.Array, rank: int, dtype: DTypeLike = jnp.float32) -> TextPairs:
    """A pool of one slot to train: as usual, `a` is random and `b` is zero, so that it changes nothing at first.

    It has pairs for every matrix that can have one, but for those of Moondream 2's variants, which no other tool reads.
    """
    return text_adapters.new(config.text, key, rank, dtype)


def adapter_of(config: ModelConfig, pool: TextPairs, name: str, slot: int = 0) -> Adapter:
    """What a slot of a pool holds, as an adapter to save (`jaxphoton.weights.adapters`) or to register with a model;
    pairs that add nothing are left out.

    Raises:
      WeightsError: it adds nothing at all, or has numbers that are not finite.
    """
    return Adapter.of(name, text_adapters.pairs_of(config.text, jax.device_get(pool), slot), "trained")
