"""Projector: features of the vision encoder -> image embeddings."""

from __future__ import annotations

import jax

from jaxphoton.layers.mlp import gelu_exact
from jaxphoton.layers.weight import linear
from jaxphoton.models.joycaption.params import VisionParams


def project(params: VisionParams, features: jax.Array) -> jax.Array:
    """Features [C, grid * grid, E] -> image embeddings [C, grid * grid, D]; the GELU is the exact one.

    There is no norm in front of it: it reads what a layer in the middle of the encoder gives.
    """
    with jax.named_scope("projection"):
        inner = gelu_exact(linear(features, params.proj_fc1_w, params.proj_fc1_b))
        return linear(inner, params.proj_fc2_w, params.proj_fc2_b)
