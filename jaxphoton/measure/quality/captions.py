"""Captions of pictures by a model in one form, and how they differ from those in another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxphoton.constraints.grammar import Grammar, Replay
from jaxphoton.engine.engine import Engine
from jaxphoton.engine.request import Request
from jaxphoton.image.prepare import Prepared
from jaxphoton.models.protocol import Family
from jaxphoton.oracle.oracle import Oracle, allowed_ids
from jaxphoton.requests.settings import Settings
from jaxphoton.requests.tokens import Token

ASKED = {"length": "normal"}
FIRST = 4  # positions of an answer whose logits are compared in full


@dataclass(frozen=True, slots=True, eq=False)
class Caption:
    """A greedy caption of one picture.

    Attributes:
      tokens: as the engine chose them, a stop id included.
      logits: float32 [N, V] at the first positions, at most `FIRST`, each behind the tokens of the reference.
      choices: at every position behind the tokens of the reference, what would be chosen.
    """

    tokens: tuple[int, ...]
    logits: np.ndarray
    choices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """Of the captions of all pictures; every share is from 0 to 1.

    Attributes:
      logits_max, logits_mean: of the absolute differences at the first positions.
      divergence: mean Kullback-Leibler divergence from the reference there, in nats.
      tokens_equal: share of positions with the same choice, behind the reference's tokens.
      prefix_equal: mean share of a caption of the reference that the own caption begins with.
      captions_equal: share of pictures with the same caption.
    """

    logits_max: float
    logits_mean: float
    divergence: float
    tokens_equal: float
    prefix_equal: float
    captions_equal: float


def write_captions(
    engine: Engine,
    params: Any,
    family: Family,
    pictures: Sequence[Prepared],
    max_tokens: int,
    reference: Sequence[Caption] | None = None,
    encode: Callable[[str], list[int]] | None = None,
) -> list[Caption]:
    """Captions of `pictures` by an engine of these parameters, each compared with those of `reference`, by default with
    themselves.

    Args:
      encode: text to ids, for a family that asks for captions in words (`asks_in_words`).

    Raises:
      EngineError: the engine fails.
    """
    skills = family.skills() if encode is None else family.skills(encode)
    form = skills.form("caption", ASKED)
    settings = Settings.parse({"temperature": 0, "max_tokens": max_tokens}, family.defaults)
    requests = [Request(form.prompt, form.grammar, settings, picture) for picture in pictures]
    submitted = [engine.submit(request, wait=True) for request in requests]
    written = [tuple(token.id for token in each.future.result().tokens) for each in submitted]
    forced = written if reference is None else [caption.tokens for caption in reference]
    oracle, found = Oracle(params, family), []
    for picture, own, tokens in zip(pictures, written, forced, strict=True):
        seen = oracle.encode_image(picture.crops)
        # The prediction behind the last token is of nothing that was written.
        predictions = oracle.replay(form.prompt, seen, [Token(token) for token in tokens[:-1]])
        logits = np.stack([each.logits for each in predictions])
        found.append(Caption(own, logits[:FIRST], _choices(logits, tokens, family.grammars[form.grammar], max_tokens)))
    return found


def asks_in_words(family: Family) -> bool:
    """Whether the prompt of a caption is a text; else it is ids that the settings name, and needs no tokenizer."""
    words = list[str]()

    def encode(text: str) -> list[int]:
        words.append(text)
        return []

    family.skills(encode).form("caption", ASKED)
    return bool(words)


def difference(reference: Sequence[Caption], found: Sequence[Caption]) -> Difference:
    """Between captions of the same pictures; `found` were written with `reference`."""
    pairs = list(zip(reference, found, strict=True))
    ours, theirs = (np.concatenate([each.logits for each in captions]) for captions in (reference, found))
    apart = np.abs(ours.astype(np.float64) - theirs)
    same = [choice == token for a, b in pairs for token, choice in zip(a.tokens, b.choices, strict=True)]
    return Difference(
        float(apart.max()),
        float(apart.mean()),
        float(_divergence(ours, theirs).mean()),
        float(np.mean(same)),
        float(np.mean([_common(a.tokens, b.tokens) / len(a.tokens) for a, b in pairs])),
        float(np.mean([a.tokens == b.tokens for a, b in pairs])),
    )


def _choices(logits: np.ndarray, tokens: Sequence[int], grammar: Grammar, max_tokens: int) -> tuple[int, ...]:
    """What is chosen greedily at each position, among what the grammar allows behind `tokens`."""
    replay, found = Replay(grammar, max_tokens, 0), []
    for line, token in zip(logits, tokens, strict=True):
        found.append(int(np.where(allowed_ids(replay.rules, len(line), None), line, -np.inf).argmax()))
        replay.advance(token)
    return tuple(found)


def _divergence(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """[N, V] logits twice -> [N]."""
    ours, theirs = (x.astype(np.float64) - x.max(axis=-1, keepdims=True) for x in (ours, theirs))
    a, b = (x - np.log(np.exp(x).sum(axis=-1, keepdims=True)) for x in (ours, theirs))
    return np.sum(np.exp(a) * (a - b), axis=-1)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids both begin with."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
