"""The cost model against the tree of parameters, a hand count, and XLA's own analysis of the programs."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from jaxphoton.config.quantization import QUANTIZATIONS, quantization
from jaxphoton.engine.compiled import Programs
from jaxphoton.measure import cost_model
from jaxphoton.models.forms import quantized_tree
from jaxphoton.models.moondream.config import ModelConfig, RegionConfig, TextConfig, VisionConfig
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.models.moondream.params import abstract, count
from jaxphoton.models.moondream.reading import named_config
from jaxphoton.models.registry import named_family
from tests.engine import tiny

MOONDREAM2 = named_family("moondream2")


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("family", ["moondream2", "moondream-0.5b", "tiny"])
def test_weights_are_those_of_the_parameter_tree(family, dtype):
    model = MoondreamFamily(tiny.CONFIG) if family == "tiny" else named_family(family)
    tree = model.network.abstract(dtype)
    parts = {name: getattr(tree, name) for name in ("vision", "text", "region")}
    expected = {name: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(part)) for name, part in parts.items()}
    assert cost_model.weight_bytes(model, dtype) == expected
    assert cost_model.parameter_count(model) == count(tree)


@pytest.mark.parametrize("quantize", [*QUANTIZATIONS, None])
@pytest.mark.parametrize("family", ["moondream2", "moondream3", "tiny"])
def test_weights_in_few_bits_are_those_of_the_quantized_tree(family, quantize):
    model = MoondreamFamily(tiny.CONFIG) if family == "tiny" else named_family(family)
    tree = quantized_tree(model, "bfloat16", quantization(quantize))
    expected = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
    assert sum(cost_model.weight_bytes(model, "bfloat16", quantize).values()) == expected


@pytest.mark.parametrize(("quantize", "share"), [("int8", 0.52), ("float8", 0.52), ("int4", 0.28), ("int4-64", 0.29)])
def test_what_a_step_reads_in_few_bits(quantize, share):
    plain, small = (
        cost_model.step_cost(MOONDREAM2, "bfloat16", 1, 850, readout=False, quantize=each) for each in (None, quantize)
    )
    assert small.weight_bytes < share * plain.weight_bytes
    assert (small.kv_bytes, small.flops) == (plain.kv_bytes, plain.flops)


def test_moondream3_has_the_size_it_is_known_by():
    assert round(cost_model.parameter_count(named_family("moondream3")) / 1e9, 2) == 9.27


@pytest.mark.parametrize(("rows", "milliseconds"), [(1, 0.68), (8, 0.95), (32, 1.88)])
def test_floors_of_moondream2_steps_at_850_positions(rows, milliseconds):
    cost = cost_model.step_cost(MOONDREAM2, "bfloat16", rows, 850)
    assert round(1e3 * cost.bytes / 4.3e12, 2) == milliseconds


def test_a_step_reads_every_weight_once_and_every_position():
    tree = MOONDREAM2.network.abstract("bfloat16")
    text = sum(leaf.size for leaf in jax.tree.leaves(tree.text)) - tree.text.wte.size
    region = sum(leaf.size for leaf in jax.tree.leaves(tree.region))
    features = tree.region.coord_features.size + tree.region.size_features.size
    cost = cost_model.step_cost(MOONDREAM2, "bfloat16", 32, 1000)
    assert cost.weight_bytes == 2 * (text + region - features)
    assert cost.kv_bytes == 32 * 1000 * 192 * 1024
    texts = cost_model.step_cost(MOONDREAM2, "bfloat16", 32, 1000, readout=False)
    assert 0.04 < 1 - texts.weight_bytes / cost.weight_bytes < 0.05
    assert texts.flops < cost.flops


def test_few_rows_read_few_experts_and_many_rows_all():
    family = named_family("moondream3")
    read = {rows: cost_model.step_cost(family, "bfloat16", rows, 1).weight_bytes for rows in (1, 2, 1000)}
    expert = 2 * 3 * 2048 * 1024 * 20  # bytes of one expert in all its layers
    assert read[2] - read[1] == pytest.approx(7 * expert, rel=1e-3)
    assert read[1000] - read[1] == pytest.approx(56 * expert, rel=1e-3)


def test_prefill_of_one_position_is_a_step_of_one_row():
    step = cost_model.step_cost(MOONDREAM2, "bfloat16", 1, 731, readout=False)
    assert cost_model.prefill_cost(MOONDREAM2, "bfloat16", 1, 1, 730) == step


def test_an_unknown_dtype_is_named():
    with pytest.raises(ValueError, match="int4"):
        cost_model.step_cost(MOONDREAM2, "int4", 1, 1)


# Wide enough that products outweigh norms, softmax and sampling, which XLA counts too, as it does the masked half of a
# prompt's scores. One vision layer: of a scan XLA counts one turn.
WIDE = ModelConfig(
    vision=VisionConfig(
        enc_dim=256,
        enc_patch_size=4,
        enc_n_layers=1,
        enc_ff_dim=1024,
        enc_n_heads=2,
        proj_out_dim=512,
        proj_inner_dim=512,
        crop_size=12,
        max_crops=3,
        overlap_margin=1,
    ),
    text=TextConfig(
        dim=512, ff_dim=2048, n_layers=3, vocab_size=256, max_context=60, n_heads=8, n_kv_heads=4, prefix_attn=10
    ),
    region=RegionConfig(dim=512, coord_feat_dim=16, coord_out_dim=64, size_feat_dim=16, size_out_dim=128, inner_dim=64),
    tokenizer=named_config("moondream2").tokenizer,
)


def test_operations_agree_with_xla():
    engine = dataclasses.replace(tiny.ENGINE, prefill_lengths=(16,), vision=((1, 4),), kernels="reference")
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), abstract(WIDE, "float32"))
    programs = Programs(params, MoondreamFamily(WIDE), engine)
    family = MoondreamFamily(WIDE)
    table = engine.page_size * programs.table
    expected = {
        ("step", 8): cost_model.step_cost(family, "float32", 8, table),
        ("forward", 8): cost_model.step_cost(family, "float32", 8, table, readout=False),
        ("prefill", 3, 16): cost_model.prefill_cost(family, "float32", 3, 16, table - 16),
        ("prefix", 1, 10): cost_model.prefix_cost(family, "float32"),
        ("vision", 1, 4): cost_model.encode_cost(family, "float32", 4),
    }
    ratios = {key: programs[key].cost_analysis()["flops"] / cost.flops for key, cost in expected.items()}
    assert all(0.98 < ratio < 1.05 for ratio in ratios.values()), ratios
