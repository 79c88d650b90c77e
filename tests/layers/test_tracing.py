"""What a program traces of its layers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxphoton.layers.tracing import traced_once


def network(traced: list[int]):
    def run(layers, x):
        def block(layer, index, x):
            traced.append(len(layer))
            return layer["w"] * x + index + offset

        offset = x[0]  # of the program: a layer may read it without being given it
        block = traced_once(block, x)
        for index, layer in enumerate(layers):
            x = block(layer, np.float32(index), x)
        return x

    return run


PLAIN = [{"w": jnp.float32(w)} for w in (2, 3, 4)]
OTHER = [{"w": jnp.float32(w), "b": jnp.float32(0)} for w in (5, 6)]
X = jnp.asarray([1.0, 2.0])


def test_layers_that_are_alike_are_traced_once_in_a_program_and_give_the_same():
    traced = []
    expected = network([])([*PLAIN, *OTHER], X)
    np.testing.assert_array_equal(jax.jit(network(traced))([*PLAIN, *OTHER], X), expected)
    assert traced == [1, 2]


def test_programs_do_not_share_what_they_traced():
    traced = []
    run = network(traced)
    for x in (X, 2 * X, jnp.ones(3)):
        np.testing.assert_array_equal(jax.jit(lambda x: run(PLAIN, x))(x), run(PLAIN, x))
    assert len(traced) == 3 * (1 + len(PLAIN))


def test_outside_a_program_nothing_is_compiled():
    def block(x):
        return x

    assert traced_once(block, X) is block
