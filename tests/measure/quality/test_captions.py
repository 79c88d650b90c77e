"""Differences of captions, counted by hand; and those of a tiny model in few bits against itself."""

from __future__ import annotations

import dataclasses
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from jaxphoton.engine.request import Request
from jaxphoton.image.prepare import prepare
from jaxphoton.layers.quantize import quantize
from jaxphoton.layers.spec import INT8
from jaxphoton.measure.quality.captions import FIRST, Caption, asks_in_words, difference, write_captions
from jaxphoton.measure.quality.run import FormReport
from jaxphoton.measure.quality.table import lines, markdown
from jaxphoton.models.joycaption.family import JoyCaptionFamily
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.models.moondream.reading import named_config
from jaxphoton.requests.tokens import Generation, Token
from tests.engine import tiny
from tests.models.joycaption.drawn import SMALL


def caption(tokens, logits, choices=None):
    return Caption(tokens, np.array(logits, np.float32), tokens if choices is None else choices)


def test_differences_are_those_of_a_hand_count():
    reference = [caption((1, 2, 9), [[0, 1], [2, 0]]), caption((3,), [[5, 5]])]
    found = [caption((1, 4, 9), [[0, 1], [0, 0]], (1, 4, 9)), caption((3,), [[5, 5]], (3,))]
    apart = difference(reference, found)
    assert (apart.logits_max, apart.logits_mean) == (2.0, 2 / 6)
    assert apart.tokens_equal == 3 / 4 and apart.captions_equal == 1 / 2
    assert apart.prefix_equal == (1 / 3 + 1) / 2
    p = np.exp(2) / (np.exp(2) + 1)
    assert apart.divergence == pytest.approx((p * np.log(2 * p) + (1 - p) * np.log(2 * (1 - p))) / 3)


def test_large_logits_that_are_equal_are_no_divergence():
    line = [[3e4, -3e4, 0.0]]
    assert difference([caption((0,), line)], [caption((0,), line)]).divergence == 0


class FixedEngine:
    """Answers every request with the same tokens."""

    def __init__(self, *tokens: int):
        self._generation = Generation(tuple(map(Token, tokens)), "stop")
        self.asked: list[Request] = []

    def submit(self, request, wait=False):
        self.asked.append(request)
        future = Future()
        future.set_result(self._generation)
        return SimpleNamespace(future=future)


def test_a_caption_is_asked_for_in_the_words_of_the_family(monkeypatch):
    family, engine = JoyCaptionFamily(SMALL), FixedEngine(5, 2)
    assert asks_in_words(family) and not asks_in_words(tiny.FAMILY)
    predicted = SimpleNamespace(logits=np.zeros(family.vocab_size, np.float32))
    oracle = SimpleNamespace(encode_image=lambda crops: None, replay=lambda prompt, seen, tokens: [predicted] * 2)
    monkeypatch.setattr("jaxphoton.measure.quality.captions.Oracle", lambda params, family: oracle)
    words = list[str]()
    picture = prepare(np.zeros((30, 30, 3), np.uint8), family.pictures)
    write_captions(cast(Any, engine), None, family, [picture], 6, encode=lambda text: words.append(text) or [3])
    assert any("description" in text for text in words) and engine.asked[0].prompt.ids.count(3) > 0


def test_a_model_in_few_bits_is_compared_behind_the_tokens_of_the_other():
    vocabulary = named_config("moondream2").text.vocab_size  # the ids of its prompts are in it
    config = dataclasses.replace(tiny.CONFIG, text=dataclasses.replace(tiny.CONFIG.text, vocab_size=vocabulary))
    family: Any = MoondreamFamily(config)
    params: Any = tiny.drawn(config)
    rng = np.random.default_rng(0)
    pictures = [prepare(rng.integers(0, 256, (8, 8, 3), np.uint8), family.pictures) for _ in range(2)]
    engine: Any = FixedEngine(7, 8, 9, 7, 8, 0)
    plain = write_captions(engine, params, family, pictures, 6)
    assert [request.settings.temperature for request in engine.asked] == [0, 0]
    assert {each.tokens for each in plain} == {(7, 8, 9, 7, 8, 0)}
    for each in plain:
        assert each.logits.shape == (FIRST, vocabulary) and len(each.choices) == 6
        chosen = each.logits.argmax(axis=1)
        suppressed = {config.tokenizer.answer_id, config.tokenizer.eos_id}
        assert all(a == b or b in suppressed for a, b in zip(each.choices, chosen, strict=False))
    head = params.text.lm_head_w.matrix
    other: Any = FixedEngine(7, 8, 1)
    coarse = params.replace(text=params.text.replace(lm_head_w=quantize(head, INT8)))
    apart = difference(plain, write_captions(other, coarse, family, pictures, 6, plain))
    # The hidden states behind the same tokens are the same: logits move by what the rows of the matrix did.
    assert 0 < apart.logits_mean < float(abs(head).max()) / 127 and 0 < apart.divergence < 0.01
    assert (apart.captions_equal, apart.prefix_equal) == (0, 2 / 6)


def test_tables_have_a_line_a_form():
    apart = difference([caption((1,), [[0, 1]])], [caption((1,), [[0, 2]])])
    reports = [
        FormReport("float32", 4000000, None, {"detect_f1": 1.0}),
        FormReport("int4", 10**6, apart, {"detect_f1": 0.5}),
    ]
    table = lines(reports)
    assert table[1].split() == ["float32", "4.0", "1.000", "1.0000"]
    assert table[2].split()[:5] == ["int4", "1.0", "0.250", "1", "0.5"] and table[2].endswith("0.5000")
    text = markdown("shapes", reports)
    assert text.startswith("### shapes\n\n| form |") and "| int4 | 1.0 | 0.250 |" in text and "Of scenes" in text
