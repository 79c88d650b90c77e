from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxphoton.models.moondream.params import Form, abstract, count
from jaxphoton.models.moondream.reading import named_config
from tests.layers.forms import dense_of, float8_experts, scaled_of


def test_moondream2_has_the_published_size_and_few_leaves():
    shapes = abstract(named_config("moondream2"), jnp.bfloat16)
    assert count(shapes) == 1_927_237_104
    assert len(jax.tree.leaves((shapes.text, shapes.region))) <= 115


def test_only_the_fourier_features_keep_float32():
    shapes = abstract(named_config("moondream2"), jnp.bfloat16)
    wide = [jax.tree_util.keystr(path) for path, leaf in jax.tree.leaves_with_path(shapes) if leaf.dtype == jnp.float32]
    assert wide == [".region.coord_features", ".region.size_features"]


def test_the_tree_is_stable_for_jit():
    first, second = (abstract(named_config("moondream2")) for _ in range(2))
    assert jax.tree.structure(first) == jax.tree.structure(second)


def test_moondream3_has_nine_billion_parameters_and_few_leaves():
    config = named_config("moondream3")
    assert count(abstract(config)) == 9_268_626_928
    everything = float8_experts(abstract(config, form=Form(kv_scales=True)))
    assert len(jax.tree.leaves(everything)) <= 220


def test_float8_experts_come_with_row_scales():
    config = named_config("moondream3")
    tree = abstract(config)
    plain, kept = (each.text.layers[4].experts for each in (tree, float8_experts(tree)))
    assert dense_of(plain.fc1_w).matrix.dtype == dense_of(kept.router_w).matrix.dtype == jnp.bfloat16
    up, down = scaled_of(kept.fc1_w), scaled_of(kept.fc2_w)
    assert up.matrix.dtype == down.matrix.dtype == jnp.float8_e4m3fn
    assert up.scale.shape == (64, 2 * 1024) and down.scale.shape == (64, 2048)
    assert up.scale.dtype == down.scale.dtype == jnp.float32


def test_the_settings_decide_which_parts_there_are():
    config = named_config("moondream3")
    assert config.text.moe is not None
    text = dataclasses.replace(config.text, tau_attn=False, moe=dataclasses.replace(config.text.moe, start_layer=0))
    shapes = abstract(dataclasses.replace(config, text=text))
    assert shapes.text.tau_alpha is None and shapes.text.in_b is None and shapes.text.out_b is None
    assert all(layer.tau_w is None and layer.experts for layer in shapes.text.layers)
    assert dense_of(shapes.text.layers[0].in_w).matrix.shape == (text.qkv_dim, text.dim)
    dense = abstract(named_config("moondream2"))
    assert dense.region.ln is None and not any(x.experts for x in dense.text.layers)
    assert dense.text.router_b is dense.text.qkv_b is dense.text.proj_b is None
