"""Coordinates and sizes: what a token of the region ids carries besides its id.

A token is fed as (kind, first value, second value), the values as float bits: a coordinate and nothing, or width and
height. It comes back as the bins that were chosen, -1 for none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxphoton.models.moondream.config import ModelConfig, RegionConfig
from jaxphoton.models.protocol import Draw

if TYPE_CHECKING:
    import jax

TOKEN, IMAGE, COORDINATE, SIZE = range(4)  # kinds of input
COORDINATE_STREAM, WIDTH_STREAM, HEIGHT_STREAM = 1, 2, 3  # of random words


def coordinate_values(config: RegionConfig) -> np.ndarray:
    """The coordinate each bin stands for, float32 [bins]: bin / bins, or bin / (bins - 1) as Photon has it."""
    bins = config.coord_out_dim
    divisor = bins if config.coord_divisor == "bins" else bins - 1
    return (np.arange(bins, dtype=np.float64) / divisor).astype(np.float32)


def size_values(config: RegionConfig) -> np.ndarray:
    """The width or height each bin stands for, float32 [bins].

    Log scale: 2^(10 bin / (bins - 1) - 10), from 1/1024 to 1. Models before March 2025: bin / bins.
    """
    bins = config.size_out_dim // 2
    index = np.arange(bins, dtype=np.float64)
    values = np.exp2(10 * index / (bins - 1) - 10) if config.size_bins == "log" else index / bins
    return values.astype(np.float32)


class RegionReadout:
    """`protocol.Readout` of one model."""

    columns = 2
    fed = 3

    def __init__(self, config: ModelConfig):
        self._config = config
        self._coordinates, self._sizes = coordinate_values(config.region), size_values(config.region)

    def taken(self, token: int, columns: Sequence[int]) -> tuple[tuple[int, ...], tuple[float, ...]]:
        first, second = columns
        if token == self._config.tokenizer.size_id:
            return (first, second), (float(self._sizes[first]), float(self._sizes[second]))
        return (first,), (float(self._coordinates[first]),)

    def feed(self, values: tuple[float, ...]) -> Sequence[int]:
        kind = COORDINATE if len(values) == 1 else SIZE
        return kind, *np.array((*values, 0.0)[:2], np.float32).view(np.int32).tolist()

    def read(
        self, params: Any, hidden: jax.Array, token: jax.Array, reads: jax.Array, draw: Draw
    ) -> tuple[jax.Array, Sequence[jax.Array], jax.Array]:
        import jax.numpy as jnp
        from jax import lax

        ids = self._config.tokenizer
        coordinate, size = reads & (token == ids.coord_id), reads & (token == ids.size_id)
        bins, logprob = self._bins(params, hidden, coordinate, size, draw)
        kind = jnp.where(coordinate, COORDINATE, jnp.where(size, SIZE, TOKEN)).astype(jnp.int32)
        coordinates, sizes = jnp.asarray(self._coordinates), jnp.asarray(self._sizes)
        first = jnp.where(coordinate, coordinates[bins[:, 0]], sizes[bins[:, 0]])
        text = (kind == TOKEN)[:, None]
        values = jnp.where(text, 0.0, jnp.stack([first, sizes[bins[:, 1]]], axis=1))
        fed = jnp.concatenate([kind[:, None], lax.bitcast_convert_type(values, jnp.int32)], axis=1)
        columns = jnp.where(kind == TOKEN, -1, bins[:, 0]), jnp.where(size, bins[:, 1], -1)
        return fed, columns, logprob

    def _bins(
        self, params: Any, hidden: jax.Array, coordinate: jax.Array, size: jax.Array, draw: Draw
    ) -> tuple[jax.Array, jax.Array]:
        """What the region heads choose: bins int32 [B, 2] and their log-probability [B]; zeros where nothing is read.

        The heads are 6% of a step's bytes: texts do not read them.
        """
        import jax.numpy as jnp
        from jax import lax

        from jaxphoton.models.moondream import region

        def read() -> tuple[jax.Array, jax.Array]:
            coordinates, sizes = region.decode(params.region, self._config.region, hidden)
            wanted = [(sizes[:, 0], WIDTH_STREAM, size), (sizes[:, 1], HEIGHT_STREAM, size)]
            drawn = draw([(coordinates, COORDINATE_STREAM, coordinate), *wanted])
            (x, x_logprob), (width, width_logprob), (height, height_logprob) = drawn
            bins = jnp.stack([jnp.where(size, width, x), height], axis=1)
            logprob = jnp.where(size, width_logprob + height_logprob, x_logprob)
            return bins, jnp.where(coordinate | size, logprob, 0.0)

        def skip() -> tuple[jax.Array, jax.Array]:
            rows = hidden.shape[0]
            return jnp.zeros((rows, 2), jnp.int32), jnp.zeros(rows, jnp.float32)

        return lax.cond(jnp.any(coordinate | size), read, skip)
