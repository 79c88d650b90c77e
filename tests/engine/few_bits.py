"""Parameters of a tiny model in few bits of several forms."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from jaxphoton.config.quantization import Quantization
from jaxphoton.layers.quantize import quantize
from jaxphoton.layers.spec import DOTTED
from jaxphoton.layers.weight import Weight
from jaxphoton.models.forms import wanted_forms
from jaxphoton.models.moondream.config import ModelConfig
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.models.moondream.params import Params
from jaxphoton.models.protocol import Family
from tests.layers.forms import dense_of, in_int4


def in_few_bits(params: Any, family: Family, kind: str) -> Any:
    """Layers and experts as quantization makes them in a kind, head and vision in int8."""
    quantization = Quantization(layers=kind, experts=kind, head="int8", vision="int8")
    forms = wanted_forms(family, family.network.abstract("float32"), None, quantization)

    def formed(path: Any, node: Any) -> Any:
        form = forms.get(jax.tree_util.keystr(path, **DOTTED))
        return node if form is None else quantize(node.matrix, form)

    return jax.tree_util.tree_map_with_path(formed, params, is_leaf=lambda node: isinstance(node, Weight))


def mixed(params: Params, config: ModelConfig) -> Params:
    """The first layer as quantization makes it in int8, the last in int4, one in groups with zero points."""
    one, other = (in_few_bits(params, MoondreamFamily(config), kind) for kind in ("int8", "int4"))
    first, *rest = one.text.layers
    first = dataclasses.replace(first, in_w=in_int4(dense_of(params.text.layers[0].in_w).matrix, 8))
    layers = (first, *rest[:-1], other.text.layers[-1])
    return with_text(one, layers=layers)


def with_text(params: Params, **changes: Any) -> Params:
    return dataclasses.replace(params, text=dataclasses.replace(params.text, **changes))
