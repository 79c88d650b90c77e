from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from jaxphoton.config import named_config
from jaxphoton.model.params import abstract, count


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


def test_a_family_without_its_parts_is_refused():
    with pytest.raises(ValueError, match="Moondream 3"):
        abstract(named_config("moondream3"))
