"""Another model on the programs of one that has compiled them: to be closed, to be full, with other weights."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import jax

from jaxphoton import Moondream
from jaxphoton.engine.engine import Engine


def beside(model: Moondream, params: Any = None, **changes: Any) -> Moondream:
    """A model that has started, to be closed by whoever asks for it.

    Args:
      params: other weights of the same shapes, dtypes and device.
      changes: of the engine's settings that programs do not depend on.
    """
    programs = copy.copy(model.engine.programs)
    programs.engine = dataclasses.replace(programs.engine, **changes)
    if params is not None:
        network = programs.family.network
        programs.params = params
        programs.encoder, programs.decoder = map(jax.tree.leaves, (network.encoder(params), network.decoder(params)))
    other = Moondream(programs.params, model.config, model.tokenizer, engine=programs.engine)
    other._session = other._session_on(Engine(programs))
    return other
