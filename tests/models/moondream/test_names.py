"""The name tables: complete for every released family, and strict about what they do not know."""

from __future__ import annotations

import math
from collections import defaultdict

import pytest

from jaxphoton.config.quantization import QUANTIZATIONS
from jaxphoton.layers.spec import by_path, with_forms
from jaxphoton.models.forms import wanted_forms, with_factors
from jaxphoton.models.moondream.names import canonical_names, placements
from jaxphoton.models.moondream.params import Form, abstract
from jaxphoton.models.moondream.reading import named_config
from jaxphoton.models.naming import Source, WeightsError, placed_shape
from jaxphoton.models.registry import named_family
from tests.layers.forms import float8_forms


def _box(shape, index):
    """Half-open extents that `index` covers in a leaf of `shape`."""
    whole = (*index, *(slice(None) for _ in shape[len(index) :]))
    ranges = (
        part.indices(n)[:2] if isinstance(part, slice) else (part, part + 1)
        for part, n in zip(whole, shape, strict=True)
    )
    return tuple(ranges)


def _disjoint(one, two) -> bool:
    return any(
        a_stop <= b_start or b_stop <= a_start for (a_start, a_stop), (b_start, b_stop) in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("family", ["moondream2", "moondream-0.5b", "moondream3"])
@pytest.mark.parametrize("form", [Form(), Form(kv_scales=True)])
@pytest.mark.parametrize("kind", [None, "float8", "int8", "int4"])
def test_every_element_of_every_leaf_is_placed_once(family, form, kind):
    bound = named_family(family)
    tree, forms = abstract(bound.config, form=form), {}
    if kind is not None:
        forms = wanted_forms(bound, tree, form, QUANTIZATIONS[kind])
    leaves = by_path(with_forms(tree, forms))
    boxes = defaultdict(list)
    table = with_factors(placements(bound.config, form), forms)
    for place in table:
        boxes[place.leaf].append(_box(leaves[place.leaf].shape, place.index))
    assert boxes.keys() == leaves.keys()
    for name, leaf in leaves.items():
        covered = boxes[name]
        for extents in covered:
            assert all(0 <= start < stop <= n for (start, stop), n in zip(extents, leaf.shape, strict=True))
        assert sum(math.prod(stop - start for start, stop in box) for box in covered) == leaf.size
        assert all(_disjoint(a, b) for i, a in enumerate(covered) for b in covered[:i])
    assert len({place.name for place in table}) == len(table)


# Checked by hand against the published file's table.
EXAMPLES = {
    "text.blocks.3.attn.qkv.bias": ("text.in_b", (3, slice(0, 6144)), (6144,)),
    "text.blocks.3.attn.qkv.weight": ("text.layers.3.in_w", (slice(0, 6144),), (6144, 2048)),
    "text.blocks.3.attn.proj.bias": ("text.out_b", (3, 0), (2048,)),
    "text.blocks.3.attn.proj.weight": ("text.layers.3.out_w", (slice(None), slice(0, 2048)), (2048, 2048)),
    "text.blocks.23.mlp.fc1.bias": ("text.in_b", (23, slice(6144, None)), (8192,)),
    "text.blocks.23.mlp.fc2.bias": ("text.out_b", (23, 1), (2048,)),
    "text.blocks.0.mlp.fc1.weight": ("text.layers.0.in_w", (slice(6144, None),), (8192, 2048)),
    "text.blocks.0.mlp.fc2.weight": ("text.layers.0.out_w", (slice(None), slice(2048, None)), (2048, 8192)),
    "text.blocks.7.ln.bias": ("text.ln", (7, 1), (2048,)),
    "text.lm_head.bias": ("text.lm_head_b", (), (51200,)),
    "vision.blocks.5.ln2.weight": ("vision.ln", (5, 1, 0), (1152,)),
    "vision.blocks.26.mlp.fc2.weight": ("vision.fc2_w", (26,), (1152, 4304)),
    "vision.post_ln.bias": ("vision.post_ln", (1,), (1152,)),
    "vision.proj_mlp.fc1.weight": ("vision.proj_fc1_w", (), (8192, 2304)),
    "region.size_decoder.fc1.weight": ("region.fc1_w", (slice(8192, None),), (8192, 2048)),
    "region.size_decoder.fc2.weight": ("region.size_w", (), (2048, 8192)),
    "region.coord_decoder.fc2.bias": ("region.head_b", (slice(0, 1024),), (1024,)),
    "region.size_encoder.bias": ("region.enc_b", (1,), (2048,)),
    "region.size_features": ("region.size_features", (), (2, 256)),
}


MOONDREAM3_EXAMPLES = {
    "text.blocks.3.mlp.fc1.weight": ("text.layers.3.in_w", (slice(6144, None),), (8192, 2048)),
    "text.blocks.3.mlp.fc2.bias": ("text.out_b", (3, 1), (2048,)),
    "text.blocks.4.attn.qkv.weight": ("text.layers.4.in_w", (), (6144, 2048)),
    "text.blocks.4.attn.qkv.bias": ("text.qkv_b", (0,), (6144,)),
    "text.blocks.23.attn.proj.weight": ("text.layers.23.out_w", (), (2048, 2048)),
    "text.blocks.23.attn.proj.bias": ("text.proj_b", (19,), (2048,)),
    "text.blocks.4.mlp.router.weight": ("text.layers.4.experts.router_w", (), (64, 2048)),
    "text.blocks.4.mlp.router.bias": ("text.router_b", (0,), (64,)),
    "text.blocks.23.mlp.router.bias": ("text.router_b", (19,), (64,)),
    "text.blocks.4.mlp.fc1.weight": ("text.layers.4.experts.fc1_w", (), (64, 2048, 2048)),
    "text.blocks.4.mlp.fc2.weight": ("text.layers.4.experts.fc2_w", (), (64, 2048, 1024)),
    "text.blocks.4.mlp.fc1.scale": ("text.layers.4.experts.fc1_scale", (), (64, 2048)),
    "text.blocks.4.mlp.fc2.scale": ("text.layers.4.experts.fc2_scale", (), (64, 2048)),
    "text.blocks.0.attn.tau.wq": ("text.layers.0.tau_w", (slice(0, 32),), (32, 6144)),
    "text.blocks.0.attn.tau.wv": ("text.layers.0.tau_w", (slice(32, None),), (32, 6144)),
    "text.blocks.7.attn.tau.alpha": ("text.tau_alpha", (7,), (32,)),
    "text.blocks.7.attn.v_scale": ("text.kv_scale", (7, slice(1, 2)), (1,)),
    "region.coord_decoder.weight": ("region.coord_w", (), (1024, 2048)),
    "region.size_decoder.bias": ("region.head_b", (slice(1024, None),), (2048,)),
    "region.ln.bias": ("region.ln", (1,), (2048,)),
}


@pytest.mark.parametrize(("family", "examples"), [("moondream2", EXAMPLES), ("moondream3", MOONDREAM3_EXAMPLES)])
def test_examples_of_placements(family, examples):
    config, form = named_config(family), Form(kv_scales=family == "moondream3")
    tree = abstract(config, form=form)
    forms = float8_forms(tree)
    leaves = by_path(with_forms(tree, forms))
    table = {place.name: place for place in with_factors(placements(config, form), forms)}
    for name, (leaf, index, shape) in examples.items():
        place = table[name]
        assert (place.leaf, place.index) == (leaf, index)
        assert placed_shape(leaves[leaf].shape, index) == shape


def test_published_names():
    names = ["model.text.blocks.0.ln.weight", "model.vision.pos_emb", "model.text.wte", "model.model.text.wte"]
    sources, unknown = canonical_names(names)
    assert not unknown
    assert sources["text.wte"] == Source("model.text.wte")
    assert sources["model.text.wte"] == Source("model.model.text.wte"), "the prefix is stripped once, and only in front"
    assert sources["vision.pos_emb"] == Source("model.vision.pos_emb")


def test_training_names():
    names = {
        "text_model._orig_mod.transformer.h.3.mixer.Wqkv.bias": "text.blocks.3.attn.qkv.bias",
        "text_model.transformer.h.12.gate.weight": "text.blocks.12.mlp.router.weight",
        "text_model.transformer.h.12.mlp.output_experts.weight": "text.blocks.12.mlp.fc2.weight",
        "text_model.transformer.h.1.tau_alpha": "text.blocks.1.attn.tau.alpha",
        "text_model.lm_head.ln.weight": "text.post_ln.weight",
        "vision_encoder.encoder.model.visual.blocks.5._orig_mod.norm2.weight": "vision.blocks.5.ln2.weight",
        "vision_encoder.projection.mlp.fc1.bias": "vision.proj_mlp.fc1.bias",
        "region_model.coordinate_decoder.fc1.weight": "region.coord_decoder.fc1.weight",
        "region_model.size_head.weight": "region.size_decoder.weight",
        "region_model.ln.bias": "region.ln.bias",
        "text_model.transformer.h.12.moe_quant.down_scale": "text.blocks.12.mlp.fc2.scale",
        "text_model.transformer.h.12.kv_quantizer.k_scale": "text.blocks.12.attn.k_scale",
    }
    sources, unknown = canonical_names([*names, "text_model.transformer.h.0.surprise", "text.wte"])
    assert unknown == ["text_model.transformer.h.0.surprise", "text.wte"]
    assert {source.name: canonical for canonical, source in sources.items()} == names
    features = ["region_model.coordinate_features.weight", "text_model.transformer.embd.wte.weight"]
    sources, _ = canonical_names(features)
    assert sources["region.coord_features"].transposed
    assert not sources["text.wte"].transposed


def test_buffers_are_ignored_and_adapters_are_not():
    buffers = ["model.text.blocks.0.kv_cache.k_cache", "model.text.attn_mask", "model.text.freqs_cis"]
    buffers += ["model.text.blocks.1.attn.rotary_emb.inv_freq", "attn_mask"]
    adapters = ["model.text.blocks.0.attn.qkv.lora_A", "model.text_lora.dense.0.up_a"]
    sources, _ = canonical_names(["model.text.blocks.0.ln.weight", *buffers, *adapters])
    assert {source.name for source in sources.values()} == {"model.text.blocks.0.ln.weight", *adapters}


def test_names_of_something_else():
    with pytest.raises(WeightsError, match="not a Moondream checkpoint"):
        canonical_names(["bert.encoder.layer.0.weight"])
    with pytest.raises(WeightsError, match="are both 'text.wte'"):
        canonical_names(["model.text.blocks.0.ln.bias", "model.text.wte", "text.wte"])
    with pytest.raises(WeightsError, match="tau_wqwv' are both 'text.blocks.0.attn.tau.wv'"):
        canonical_names([f"text_model.transformer.h.0.tau_{name}" for name in ("wv", "wqwv")])


def test_a_fused_tensor_is_two_halves():
    sources, unknown = canonical_names(["text_model.transformer.h.2.tau_wqwv"])
    assert not unknown
    name = "text_model.transformer.h.2.tau_wqwv"
    assert sources == {
        "text.blocks.2.attn.tau.wq": Source(name, half=0),
        "text.blocks.2.attn.tau.wv": Source(name, half=1),
    }
