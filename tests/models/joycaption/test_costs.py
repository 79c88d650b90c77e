"""What a JoyCaption costs: against its tree of parameters, a count by hand, and XLA's own analysis."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from jaxphoton.config.quantization import QUANTIZATIONS, quantization
from jaxphoton.engine.compiled import Programs
from jaxphoton.layers.spec import nbytes
from jaxphoton.measure import cost_model, roofline
from jaxphoton.measure.chips import find_chip
from jaxphoton.models.costs import Collective, Storage
from jaxphoton.models.forms import quantized_tree
from jaxphoton.models.joycaption.config import ModelConfig
from jaxphoton.models.joycaption.costs import costs
from jaxphoton.models.joycaption.family import JoyCaptionFamily
from jaxphoton.models.joycaption.reading import config_from_dict
from jaxphoton.models.llama.config import TextConfig
from jaxphoton.models.siglip.config import VisionConfig
from tests.engine import tiny
from tests.models.joycaption.drawn import REAL, SMALL

FAMILIES = {"small": JoyCaptionFamily(SMALL), "published": JoyCaptionFamily(config_from_dict(REAL))}
PLAIN = Storage(4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("quantize", [None, *QUANTIZATIONS])
@pytest.mark.parametrize("name", FAMILIES)
def test_weights_are_those_of_the_parameter_tree(name, quantize, dtype):
    family = FAMILIES[name]
    tree = quantized_tree(family, dtype, quantization(quantize))
    found = {part: sum(map(nbytes, jax.tree.leaves(getattr(tree, part)))) for part in ("vision", "text")}
    assert cost_model.weight_bytes(family, dtype, quantize) == found
    if quantize is None:
        assert cost_model.parameter_count(family) == sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_a_tiny_one_by_hand():
    """4 patches of 588 numbers, 24 wide, one layer of two run; 2 text layers of 1,856 numbers, 16 wide, 8 heads of 4
    over 2, 35 ids."""
    cost = costs(FAMILIES["small"])
    picture = cost.encode(3, 3, PLAIN)
    assert picture.flops == 3 * (2 * 4 * 588 * 24 + 2 * 4 * (4 * 24**2 + 2 * 24 * 32) + 4 * 4**2 * 24 + 2 * 4 * 16 * 40)
    assert picture.data_bytes == 3 * (30 * 30 * 3 + 4 * 4 * 16)
    step = cost.text(2, 2, 20, 20, PLAIN, readout=True)
    assert step.flops == 2 * 2 * 2 * 1856 + 2 * 2 * 35 * 16 + 4 * 20 * 32 * 2
    assert step.weight_bytes == 4 * (2 * (1856 + 2 * 16) + 35 * 16 + 16)
    assert step.kv_bytes == 20 * 2 * 2 * 2 * 4 * 4 and step == cost.text(2, 2, 20, 20, PLAIN, readout=False)
    prefix = cost.prefix(1, 5, PLAIN)
    assert prefix.flops == 2 * 5 * (1856 + 768) + 4 * 15 * 32  # q, k and v of the last layer, and no more
    assert prefix.weight_bytes == 4 * (1856 + 768 + 3 * 16)


def test_what_devices_that_share_it_tell_each_other():
    """Two sums a layer, of attention and of the MLP; the table's lines; the logits."""
    cost = costs(FAMILIES["small"])
    assert cost.text_collectives(3, 2, 2) == [
        Collective("sum", 1, 2 * 3 * 16),
        Collective("sum", 4, 4 * 3 * 16),
        Collective("gather", 1, 4 * 2 * 35),
    ]
    assert cost.prefix_collectives(1, 5, 2) == [Collective("sum", 1, 2 * 5 * 16), Collective("sum", 2, 4 * 5 * 16)]
    step = cost.text(2, 2, 20, 20, PLAIN, readout=False)
    assert step.shared(2).weight_bytes == (step.weight_bytes + 4 * (2 * 2 + 1) * 16) // 2  # norms are everywhere


def test_a_step_at_full_size_reads_the_layers_and_the_head():
    family = FAMILIES["published"]
    tree = family.network.abstract("bfloat16").text
    read = sum(map(nbytes, jax.tree.leaves(tree))) - nbytes(tree.wte)
    cost = cost_model.step_cost(family, "bfloat16", 32, 1000)
    assert (cost.weight_bytes, cost.kv_bytes) == (read, 32 * 1000 * 128 * 1024)


def test_the_roofline_names_every_length_of_a_prefix_and_no_boxes():
    parts = roofline.floors(FAMILIES["published"], find_chip("H200"), "bfloat16", [1, 8], 850)
    names = ["encode 1 x 1", "prefix 1 x 793", "prefix 1 x 985", "prefill 1 x 32", "step 1", "step 8"]
    assert [part.name for part in parts] == names
    short, long, whole = (
        roofline.cost_of(name, FAMILIES["published"], "bfloat16", 850)
        for name in ("prefix 1 x 793", "prefix 1 x 985", "prefix 1")
    )
    assert short.flops < long.flops == whole.flops


# Wide, as in tests/measure/test_cost_model.py; one layer of the encoder is run, since of a scan XLA counts one turn.
WIDE = ModelConfig(
    vision=VisionConfig(256, 1024, 2, 2, 30, 5),
    text=TextConfig(512, 1024, 3, 8, 2, 64, 256, 60),
    image_token_index=20,
)


@pytest.mark.slow
def test_operations_agree_with_xla():
    family = JoyCaptionFamily(WIDE)
    family.prefix_lengths = (family.image_tokens + 8,)
    engine = dataclasses.replace(tiny.ENGINE, prefill_lengths=(16,), vision=((1, 1),), kernels="reference")
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), family.network.abstract("float32"))
    programs = Programs(params, family, engine)
    table = engine.page_size * programs.table
    expected = {
        ("step", 8): cost_model.step_cost(family, "float32", 8, table),
        ("prefill", 3, 16): cost_model.prefill_cost(family, "float32", 3, 16, table - 16),
        ("prefix", 1, family.prefix_lengths[-1]): cost_model.prefix_cost(family, "float32"),
        ("vision", 1, 1): cost_model.encode_cost(family, "float32", 1),
    }
    ratios = {key: programs[key].cost_analysis()["flops"] / cost.flops for key, cost in expected.items()}
    assert all(0.98 < ratio < 1.05 for ratio in ratios.values()), ratios
