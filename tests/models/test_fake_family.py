"""A family of a hundred lines in the engine: nothing else of the project knows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

import jax
import numpy as np
import pytest
from PIL import Image

from jaxphoton.config import EngineConfig
from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.device import Device
from jaxphoton.engine.engine import Engine
from jaxphoton.engine.request import Request
from jaxphoton.image.prepare import Prepared
from jaxphoton.models import registry
from jaxphoton.models.protocol import Prompt
from jaxphoton.oracle.oracle import Oracle
from jaxphoton.requests.settings import Settings
from tests.engine.comparison import Comparison
from tests.engine.tiny import Loop, Poisoned, Schedule, at_once, with_engine

SETTINGS = {"model_type": "fake", "layers": 2, "vocab_size": 64}
ENGINE = EngineConfig(
    max_rows=6, page_size=4, step_rows=(6,), prefill_rows=(3,), prefill_lengths=(6,), host_masks=False
)
PATIENCE = 300.0
NO_MORE: Mapping[int, Prepared] = MappingProxyType({})


@pytest.fixture(scope="module")
def family():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.FAMILIES, "fake", "tests.models.fake_family")
        yield registry.family_of(SETTINGS)


@pytest.fixture(scope="module")
def params(family):
    random = np.random.default_rng(0)
    leaves, tree = jax.tree.flatten(family.network.abstract("float32"))
    return jax.tree.unflatten(tree, [jax.numpy.asarray(random.normal(0, 0.3, s.shape), s.dtype) for s in leaves])


@pytest.fixture(scope="module")
def programs(family, params) -> Programs:
    return Programs(params, family, ENGINE)


@pytest.fixture(scope="module")
def oracle(family, params) -> Oracle:
    return Oracle(params, family)


@pytest.fixture(scope="module")
def pictures(family) -> list[Prepared]:
    random = np.random.default_rng(1)
    drawn = [random.integers(0, 256, (9 + i, 12, 3), np.uint8) for i in range(3)]
    return [
        Prepared(family.pictures.prepare(Image.fromarray(pixels)), bytes([i]), pixels.shape[:2])
        for i, pixels in enumerate(drawn)
    ]


def asked(
    picture: Prepared | None,
    before: int,
    behind: int = 3,
    seed: int = 1,
    further: Mapping[int, Prepared] = NO_MORE,
    **settings,
) -> Request:
    """`before` ids in front of the image, the first of them the same for the same number; further ones `behind`."""
    front, back = (tuple(5 + (7 * i + n) % 50 for i in range(n)) for n in (before, behind))
    settings = {"temperature": 0.9, "max_tokens": 12, "seed": seed, **settings}
    prompt = Prompt(back, before=front, pictures=tuple(further))
    return Request(prompt, "text", Settings(**settings), picture, further=tuple(further.values()))


@pytest.fixture(scope="module")
def requests(pictures) -> list[Request]:
    """About pictures and about none, with texts of all lengths before and behind; some greedy."""
    return [
        asked(
            None if n % 5 == 4 else pictures[n % 3],
            before=(0, 3, 11, 7)[n % 4],
            behind=(1, 5, 14)[n % 3],
            seed=n,
            temperature=0.0 if n % 3 else 0.9,
            further={n % 3: pictures[0], 4: pictures[2]} if n % 3 and n % 2 else NO_MORE,
        )
        for n in range(14)
    ]


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("pages", [None, 24])
def test_all_requests_are_answered_as_by_the_oracle(family, programs, oracle, requests, depth, pages):
    comparison = Comparison(oracle, family.grammars)
    loop = Loop(programs, Device(Poisoned(programs)))
    sequences, scheduler = loop.run(Schedule(at_once(*requests), depth=depth, rows=6, pages=pages))
    assert (scheduler.preemptions > 0) == (pages is not None), "a small pool preempts, a large one does not"
    for sequence in sequences:
        comparison.compare(sequence.request, sequence.tokens, sequence.finish_reason)
    assert comparison.compared == len(requests) and not comparison.near_ties
    last = {sequence.tokens[-1].id for sequence in sequences if sequence.finish_reason == "stop"}
    assert last <= family.stop_ids


def test_with_fixed_shapes_short_prefixes_run_in_the_one_program(family, params, oracle, requests):
    comparison = Comparison(oracle, family.grammars)
    loop = Loop(Programs(params, family, dataclasses.replace(ENGINE, fixed_shapes=True)))
    sequences, _ = loop.run(Schedule(at_once(*requests[:4]), rows=6))
    assert {len(sequence.segments.prefix) > family.prefix_lengths[0] for sequence in sequences} == {False, True}
    for sequence in sequences:
        comparison.compare(sequence.request, sequence.tokens, sequence.finish_reason)
    assert comparison.compared == 4


def test_any_of_the_stop_ids_ends_a_text(family, programs, pictures):
    loop = Loop(programs)
    asks = [asked(pictures[seed % 3], 2, seed=seed, temperature=5.0, max_tokens=40) for seed in range(12)]
    sequences, _ = loop.run(Schedule(at_once(*asks), rows=6))
    ended = {sequence.tokens[-1].id for sequence in sequences if sequence.finish_reason == "stop"}
    assert ended == family.stop_ids


def test_the_prefix_is_shared_where_the_text_before_the_image_is_the_same(programs, pictures):
    launched, found = [], []
    with Engine(with_engine(programs, depth=2)) as engine:
        prefill = engine.pipeline.device.prefill
        engine.pipeline.device.prefill = lambda plan: launched.append(len(plan.images)) or prefill(plan)
        for before, behind, picture in ((3, 4, 0), (3, 9, 0), (7, 4, 0), (3, 4, 1), (7, 2, 0)):
            submission = engine.submit(asked(pictures[picture], before, behind))
            submission.future.result(PATIENCE)
            found.append(submission.metrics.cached_tokens)
    # BOS, the text before, and four image embeddings.
    expected = [(1, 0), (0, 1 + 3 + 4), (1, 0), (1, 0), (0, 1 + 7 + 4)]
    assert list(zip(launched, found, strict=True)) == expected


def test_a_text_too_long_before_the_image_is_refused(programs, pictures):
    with Engine(programs) as engine:
        with pytest.raises(ValueError, match="17 positions up to the end of its image; at most 16"):
            engine.submit(asked(pictures[0], before=12))
        assert engine.submit(asked(None, before=12)).future.result(PATIENCE).tokens


def test_kernels_give_what_the_oracle_gives(family, params, oracle, requests):
    interpreted = Programs(params, family, dataclasses.replace(ENGINE, kernels="interpret"))
    comparison = Comparison(oracle, family.grammars)
    for sequence in Loop(interpreted).run(Schedule(at_once(*requests[:6]), rows=6))[0]:
        comparison.compare(sequence.request, sequence.tokens, sequence.finish_reason)
    assert comparison.compared == 6 and not comparison.near_ties
