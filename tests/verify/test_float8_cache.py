"""What keys and values kept in float8 do to recorded logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxphoton.engine.state import FLOAT8, Kernels, PagedCache, paged_attend
from jaxphoton.functional import prompt_inputs
from jaxphoton.models.moondream import inputs
from jaxphoton.models.moondream import network as text
from jaxphoton.models.moondream.checks.cases import Bench
from jaxphoton.models.protocol import CacheSpec
from jaxphoton.verify.bench import plain_prompt

PAGE = 16


def logits(bench: Bench, dtype: jax.typing.DTypeLike) -> np.ndarray:
    """Of the prompt of the prefill case, attention through pages of `dtype`."""
    case, params, config = bench.golden.case("prefill"), bench.params, bench.config
    prompt, image = plain_prompt(case["prompt"]), bench.image(case)
    ids, kinds, values = (jnp.asarray(part)[None] for part in prompt_inputs(config, prompt, image is not None))
    length = ids.shape[1]
    pages = -(-length // PAGE) + 1  # the prefix ends with a gap
    positions = jnp.arange(length, dtype=jnp.int32)[None]
    tables, none = jnp.arange(1, 1 + pages, dtype=jnp.int32)[None], jnp.zeros(1, jnp.int32)
    prefix = none if image is None else none + config.text.prefix_attn
    everything = jnp.ones((1, length), bool)
    attending = paged_attend(Kernels("reference"), PAGE, tables, positions, everything, prefix, params.text.kv_scale)
    x = inputs.embed(params, ids, kinds, values, None if image is None else image.embeddings[None])
    spec = CacheSpec(config.text.n_layers, config.text.n_kv_heads, config.text.head_dim)
    cache = PagedCache.zeros(spec, 1 + pages, PAGE, dtype)
    hidden, _ = text.forward(params.text, config.text, x, positions, attending, cache)
    return np.asarray(text.logits(params.text, hidden))[0, -len(prompt.ids) :]


@pytest.mark.parametrize("family", ["md2", pytest.param("md3", marks=pytest.mark.slow)])
def test_golden_logits_move_little(family, request, capsys):
    bench = request.getfixturevalue(f"{family}_bench")
    golden = bench.golden.case("prefill")["logits"]
    exact, rounded = logits(bench, jnp.float32), logits(bench, FLOAT8)
    assert np.max(np.abs(exact - golden)) < 1e-4
    error = np.abs(rounded - golden)
    with capsys.disabled():
        spread, same = np.std(golden), np.mean(np.argmax(rounded, 1) == np.argmax(golden, 1))
        print(f"\n{family}-tiny, float8 keys and values: logits of standard deviation {spread:.3f} move by", end=" ")
        print(f"{error.mean():.4f} on average, {error.max():.4f} at most; best id kept at {same:.0%} of positions")
    assert 0 < error.mean() < 0.05 * np.std(golden)
