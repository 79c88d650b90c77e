"""Answers of the engine compared with the oracle's: what a request must give, and what is a near tie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from jaxphoton.constraints.grammar import FinishReason, Grammar, Replay
from jaxphoton.engine.request import Request
from jaxphoton.image.prepare import Prepared
from jaxphoton.oracle.oracle import Oracle, OracleRequest, Picture, Prediction, allowed_ids, sampling
from jaxphoton.requests.settings import Settings
from jaxphoton.requests.tokens import Generation, Token
from tests.engine.tiny import GRAMMARS

TOLERANCE = 1e-4
ROUTER_GAP = 1e-5  # of router logits that rounding may order differently


@dataclass
class Comparison:
    """Attributes:
    oracle: of the model.
    grammars: of its family.
    compared: requests compared so far.
    near_ties: descriptions of those that were not exactly as the oracle would have it, but excusable.
    """

    oracle: Oracle
    grammars: Mapping[str, Grammar] = field(default_factory=lambda: GRAMMARS)
    compared: int = 0
    near_ties: list[str] = field(default_factory=list)
    _known: dict[tuple, Generation] = field(default_factory=dict)
    _images: dict[bytes, Picture] = field(default_factory=dict)

    def compare(self, request: Request, tokens: list[Token], finish: FinishReason | None) -> None:
        """Tokens of a request that ended with `finish`, or was given up (None)."""
        self.compared += 1
        expected = self.expected(request)
        wanted = expected.tokens if finish is not None else expected.tokens[: len(tokens)]
        exact = _choices(wanted) == _choices(tokens) and finish in (None, expected.finish_reason)
        if exact:
            assert all(a.value == b.value for a, b in zip(wanted, tokens, strict=True))
            if all(abs(a.logprob - b.logprob) <= TOLERANCE for a, b in zip(wanted, tokens, strict=True)):
                return
        self._excuse(request, tokens, finish)
        self.near_ties.append(f"{request.grammar}: {_choices(tokens)} for {_choices(wanted)}")

    def expected(self, request: Request) -> Generation:
        """What the oracle answers; it is asked once."""
        key = (
            request.prompt,
            request.grammar,
            request.settings,
            request.image and request.image.digest,
            tuple(picture.digest for picture in request.further),
            request.constraint,
            request.adapter and request.adapter.digest,
        )
        if key not in self._known:
            grammar, (image, further) = self.grammars[request.grammar], self._pictures(request)
            asked = (request.prompt, grammar, request.settings, image, request.constraint, request.adapter, further)
            self._known[key] = self.oracle.run(OracleRequest(*asked))
        return self._known[key]

    def _pictures(self, request: Request) -> tuple[Picture | None, list[Picture]]:
        image = None if request.image is None else self._picture(request.image)
        return image, [self._picture(picture) for picture in request.further]

    def _picture(self, image: Prepared) -> Picture:
        if image.digest not in self._images:
            self._images[image.digest] = self.oracle.encode_image(image.crops)
        return self._images[image.digest]

    def _excuse(self, request: Request, tokens: list[Token], finish: FinishReason | None) -> None:
        """Replays the tokens: each must be allowed and as good as the best, up to rounding.

        How good it is cannot be told behind a position whose router may have gone another way.
        """
        settings = request.settings
        (image, further), family = self._pictures(request), self.oracle.family
        predictions = self.oracle.replay(request.prompt, image, tokens, request.adapter, further)
        segments = family.segments(request.prompt, image and image.crops, [picture.crops for picture in further])
        room = family.max_context - len(segments.prefix) - len(segments.ids)
        replay = Replay(self.grammars[request.grammar], min(settings.max_tokens, room), settings.max_objects)
        constraint = request.constraint() if request.constraint else None
        for index, (token, prediction) in enumerate(zip(tokens, predictions, strict=False)):
            assert replay.finish is None, f"tokens behind the end: {request}"
            assert replay.allows(token.id), f"token {token.id} at {index} is not allowed: {request}"
            if prediction.margin >= ROUTER_GAP:
                allowed = allowed_ids(replay.rules, len(prediction.logits), constraint)
                logprob = check_token(self.oracle, token, prediction, allowed, settings, index)
                assert abs(logprob - token.logprob) <= TOLERANCE, f"log-probability at {index}: {request}"
            if replay.advance(token.id) is None and constraint is not None:
                constraint.accept(token.id)
        assert replay.finish == finish or finish is None, f"finish {finish} for {replay.finish}: {request}"


def check_token(
    oracle: Oracle, token: Token, prediction: Prediction, allowed: np.ndarray, settings: Settings, index: int
) -> float:
    """Asserts that a token is a right choice; returns the log-probability that it should have."""
    logprob = check_choice(token.id, np.where(allowed, prediction.logits, -np.inf), settings, index, sampling.TOKEN)
    if token.bins is None:
        return logprob
    chosen = iter(token.bins)

    def compared(logits: np.ndarray, stream: int) -> tuple[int, float]:
        return (entry := next(chosen)), check_choice(entry, logits, settings, index, stream)

    read = oracle.read(prediction, token.id, compared)
    assert read.bins == token.bins
    return logprob + read.logprob


def check_choice(chosen: int, logits: np.ndarray, settings: Settings, index: int, stream: int) -> float:
    """Asserts that `chosen` is the best entry, give or take TOLERANCE in score and in top-p mass."""
    temperature, seed = settings.temperature, settings.seed or 0
    certain, possible = (
        sampling.perturbed_scores(logits, temperature, top_p, seed, index, stream)
        for top_p in (settings.top_p - TOLERANCE, settings.top_p + TOLERANCE)
    )
    gap = certain.max() - possible[chosen]
    assert gap <= TOLERANCE, f"entry {chosen} of stream {stream} at {index} is {gap:g} short of the best"
    return float(sampling.log_softmax(logits)[chosen])


def _choices(tokens) -> list[tuple]:
    return [(token.id, token.bins) for token in tokens]
