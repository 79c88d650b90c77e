"""What a SmolVLM2 costs: against its tree of parameters, and a count by hand."""

from __future__ import annotations

import jax
import pytest

from jaxphoton.config.quantization import QUANTIZATIONS, quantization
from jaxphoton.layers.spec import nbytes
from jaxphoton.models.costs import Collective, Storage
from jaxphoton.models.forms import quantized_tree
from jaxphoton.models.smolvlm.costs import costs
from jaxphoton.models.smolvlm.reading import config_from_dict
from tests.models.smolvlm.drawn import REAL, SMALL, bound_to

FAMILIES = {"small": bound_to(SMALL), **{name: bound_to(config_from_dict(data)) for name, data in REAL.items()}}


@pytest.mark.parametrize("quantize", [None, *QUANTIZATIONS])
@pytest.mark.parametrize("name", FAMILIES)
def test_weights_are_those_of_the_parameter_tree(name, quantize):
    family = FAMILIES[name]
    tree = quantized_tree(family, "bfloat16", quantization(quantize))
    found = {part: sum(map(nbytes, jax.tree.leaves(getattr(tree, part)))) for part in ("vision", "text")}
    cost = costs(family)
    assert cost.weights(Storage(2, quantization(quantize))) == found
    if quantize is None:
        assert sum(cost.parameters().values()) == sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_sizes_are_those_that_the_models_are_known_by():
    sizes = {name: sum(costs(FAMILIES[name]).parameters().values()) / 1e6 for name in REAL}
    assert {name: round(size) for name, size in sizes.items()} == {"2.2b": 2247, "500m": 507, "256m": 256}


def test_frames_by_hand():
    """A frame of P patches, E wide, through all layers, and n embeddings through the connector."""
    cost, vision = costs(FAMILIES["small"]), SMALL.vision
    patches, e, d, n = vision.grid**2, vision.hidden_size, SMALL.text.hidden_size, SMALL.frame_tokens
    layer = 2 * patches * (4 * e**2 + 2 * e * vision.intermediate_size) + 4 * patches**2 * e
    frame = 2 * patches * 3 * vision.patch_size**2 * e + vision.num_hidden_layers * layer
    frame += 2 * n * SMALL.scale_factor**2 * e * d
    picture = cost.encode(1, 5, Storage(4))
    assert picture.flops == 5 * frame
    assert picture.data_bytes == 5 * (3 * vision.image_size**2 + 4 * n * d)
    assert cost.encode_collectives(6, 4) == [Collective("gather", 1, 4 * 6 * n * d)]
