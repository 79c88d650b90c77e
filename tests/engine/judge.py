"""The oracle as a judge: what a request must give, and whether a difference is a near tie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import jax
import numpy as np

from jaxphoton.constraints.grammar import FinishReason, Grammar, Walk
from jaxphoton.engine.request import Request
from jaxphoton.oracle.oracle import Oracle, OracleRequest, Readout, allowed_ids, sampling
from jaxphoton.requests.settings import Settings
from jaxphoton.requests.tokens import Generation, Token
from tests.engine.tiny import GRAMMARS

TOLERANCE = 1e-4
ROUTER_GAP = 1e-5  # of router logits that rounding may order differently


@dataclass
class Judge:
    """Attributes:
    oracle: of the model.
    grammars: of its family.
    judged: requests compared so far.
    near_ties: descriptions of those that were not exactly as the oracle would have it, but excusable.
    """

    oracle: Oracle
    grammars: Mapping[str, Grammar] = field(default_factory=lambda: GRAMMARS)
    judged: int = 0
    near_ties: list[str] = field(default_factory=list)
    _known: dict[tuple, Generation] = field(default_factory=dict)
    _images: dict[bytes, jax.Array] = field(default_factory=dict)

    def compare(self, request: Request, tokens: list[Token], finish: FinishReason | None) -> None:
        """Tokens of a request that ended with `finish`, or was given up (None)."""
        self.judged += 1
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
            request.image and request.image.key,
            request.constraint,
        )
        if key not in self._known:
            grammar = self.grammars[request.grammar]
            self._known[key] = self.oracle.run(
                OracleRequest(request.prompt, grammar, request.settings, self._image(request), request.constraint)
            )
        return self._known[key]

    def _image(self, request: Request) -> jax.Array | None:
        image = request.image
        if image is None:
            return None
        if image.key not in self._images:
            self._images[image.key] = self.oracle.encode_image(image.crops)
        return self._images[image.key]

    def _excuse(self, request: Request, tokens: list[Token], finish: FinishReason | None) -> None:
        """Replays the tokens: each must be allowed and as good as the best, up to rounding.

        How good it is cannot be told behind a position whose router may have gone another way.
        """
        settings = request.settings
        readouts = self.oracle.replay(request.prompt, self._image(request), tokens)
        context, prefix = self.oracle.config.text.max_context, self.oracle.config.text.prefix_attn
        room = context - (prefix if request.image else 1) - len(request.prompt.ids)
        walk = Walk(self.grammars[request.grammar], min(settings.max_tokens, room), settings.max_objects)
        constraint = request.constraint() if request.constraint else None
        for index, (token, readout) in enumerate(zip(tokens, readouts, strict=False)):
            assert walk.finish is None, f"tokens behind the end: {request}"
            assert walk.allows(token.id), f"token {token.id} at {index} is not allowed: {request}"
            size_id = self.oracle.config.tokenizer.size_id
            if readout.router_gap >= ROUTER_GAP:
                allowed = allowed_ids(walk.rules, len(readout.logits), constraint)
                logprob = judge_token(token, readout, allowed, settings, index, size_id)
                assert abs(logprob - token.logprob) <= TOLERANCE, f"log-probability at {index}: {request}"
            if walk.advance(token.id) is None and constraint is not None:
                constraint.accept(token.id)
        assert walk.finish == finish or finish is None, f"finish {finish} for {walk.finish}: {request}"


def judge_token(
    token: Token, readout: Readout, allowed: np.ndarray, settings: Settings, index: int, size_id: int
) -> float:
    """Asserts that a token is a right choice; returns the log-probability that it should have."""
    logprob = judge_choice(token.id, np.where(allowed, readout.logits, -np.inf), settings, index, sampling.TOKEN)
    if token.bins is not None and token.id == size_id:
        for bin_, logits, stream in zip(token.bins, readout.size, (sampling.WIDTH, sampling.HEIGHT), strict=True):
            logprob += judge_choice(bin_, logits, settings, index, stream)
    elif token.bins is not None:
        logprob += judge_choice(token.bins[0], readout.coordinate, settings, index, sampling.COORDINATE)
    return logprob


def judge_choice(chosen: int, logits: np.ndarray, settings: Settings, index: int, stream: int) -> float:
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
