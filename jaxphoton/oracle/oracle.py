"""The truth: one request at a time, a dense cache, a plain Python loop.

Slow on purpose. Everything faster is compared with it, so it shares no sampling, grammar or cache code with
the engine: it samples in NumPy (`oracle.sampling`) and follows the grammar's rules, not the device tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxphoton.constraints.grammar import Grammar, State, Walk
from jaxphoton.constraints.protocol import Constraint, MakeConstraint
from jaxphoton.functional import decode_step, encode_image, fed_as, prefill, prompt_inputs, read
from jaxphoton.image.crops import Crops
from jaxphoton.layers import moe
from jaxphoton.layers.cache import DenseCache
from jaxphoton.models.moondream import network as text
from jaxphoton.models.moondream import readouts
from jaxphoton.models.moondream.config import ModelConfig
from jaxphoton.models.moondream.params import Params
from jaxphoton.models.moondream.pooling import pooling_matrices
from jaxphoton.models.moondream.prompts import Prompt
from jaxphoton.oracle import sampling
from jaxphoton.requests.settings import Settings
from jaxphoton.requests.tokens import Generation, Token

PROMPT_STEP = 64  # prompts are padded to a multiple of this, so that few lengths compile


@dataclass(frozen=True, slots=True)
class Readout:
    """What one position predicts, float32: hidden [D] (before the final LayerNorm), logits [V], coordinate bins
    [bins], size bins [2, bins]. `router_gap` [] is the smallest of `moe.gap` in this and all earlier positions, inf
    without experts: a computation whose router logits differ by more may have gone another way."""

    hidden: np.ndarray
    logits: np.ndarray
    coordinate: np.ndarray
    size: np.ndarray
    router_gap: np.ndarray


@dataclass(frozen=True, slots=True)
class OracleRequest:
    """One request: `image` is [I, D] embeddings or None, `settings.seed` must be set unless greedy."""

    prompt: Prompt
    grammar: Grammar
    settings: Settings
    image: jax.Array | None = None
    constraint: MakeConstraint | None = None


class Oracle:
    """Runs requests of one model, one after the other."""

    def __init__(self, params: Params, config: ModelConfig):
        self.params, self.config = params, config
        self._coordinate_values = readouts.coordinate_values(config.region)
        self._size_values = readouts.size_values(config.region)
        self._encode = jax.jit(partial(encode_image, config=config))
        self._prefill = jax.jit(partial(_prefill, config=config))
        self._step = jax.jit(partial(_step, config=config), donate_argnames="cache")

    def encode_image(self, crops: Crops) -> jax.Array:
        """Crops of one picture -> image embeddings [grid * grid, D]."""
        rows, columns = pooling_matrices(crops.tiling, self.config.vision)
        return self._encode(self.params, pixels=crops.pixels, rows=rows, columns=columns)

    def start(self, prompt: Prompt, image: jax.Array | None = None) -> Session:
        """Prefills a prompt.

        Raises:
          ValueError: the prompt is longer than the model's context.
        """
        ids, kinds, values = prompt_inputs(self.config, prompt, image is not None)
        length, limit = len(ids), self.config.text.max_context
        if length >= limit:
            raise ValueError(f"the prompt has {length} positions; this model's context holds {limit}")
        padding = min(-length % PROMPT_STEP, limit - length)
        readout, cache = self._prefill(
            self.params,
            ids=np.pad(ids, (0, padding))[None],
            kinds=np.pad(kinds, (0, padding))[None],
            values=np.pad(values, ((0, padding), (0, 0)))[None],
            image=None if image is None else image[None],
            length=np.int32(length),
        )
        prefix = 0 if image is None else self.config.text.prefix_attn
        step = partial(self._step, self.params, prefix_length=np.full(1, prefix, np.int32))
        return Session(self.config, step, cache, length, _host(readout))

    def generate(self, request: OracleRequest) -> Iterator[tuple[Token, Walk]]:
        """Yields each token as it is chosen, with the walk that took it; its `finish` says whether it is the last."""
        session = self.start(request.prompt, request.image)
        room = self.config.text.max_context - session.length
        walk = Walk(request.grammar, min(request.settings.max_tokens, room), request.settings.max_objects)
        constraint = None if request.constraint is None else request.constraint()
        while True:
            token = self._choose(session.readout, walk, request.settings, constraint)
            finish = walk.advance(token.id)
            yield token, walk
            if finish is not None:
                return
            if constraint is not None:
                constraint.accept(token.id)
            session.feed(token)

    def run(self, request: OracleRequest) -> Generation:
        """Generates to the end."""
        steps = list(self.generate(request))
        finish = steps[-1][1].finish
        assert finish is not None
        return Generation(tuple(token for token, _ in steps), finish)

    def replay(self, prompt: Prompt, image: jax.Array | None, tokens: Sequence[Token]) -> list[Readout]:
        """Teacher forcing: the readout that precedes each of `tokens`, and the one behind the last."""
        session = self.start(prompt, image)
        readouts = [session.readout]
        for token in tokens:
            readouts.append(session.feed(token))
        return readouts

    def _choose(self, readout: Readout, walk: Walk, settings: Settings, constraint: Constraint | None) -> Token:
        state, index = walk.rules, walk.tokens
        allowed = allowed_ids(state, len(readout.logits), constraint)
        logits = np.where(allowed, readout.logits, -np.inf)
        token, logprob = _draw(logits, settings, index, sampling.TOKEN)
        if state.region and token == self.config.tokenizer.coord_id:
            at, at_logprob = _draw(readout.coordinate, settings, index, sampling.COORDINATE)
            return Token(token, (at,), (float(self._coordinate_values[at]),), logprob + at_logprob)
        if state.region and token == self.config.tokenizer.size_id:
            width, width_logprob = _draw(readout.size[0], settings, index, sampling.WIDTH)
            height, height_logprob = _draw(readout.size[1], settings, index, sampling.HEIGHT)
            value = (float(self._size_values[width]), float(self._size_values[height]))
            return Token(token, (width, height), value, logprob + width_logprob + height_logprob)
        return Token(token, logprob=logprob)


class Session:
    """One sequence being generated.

    Attributes:
      readout: what the last fed position predicts.
      length: positions fed so far.
    """

    def __init__(self, config: ModelConfig, step: Callable, cache: DenseCache, length: int, readout: Readout):
        self.readout, self.length = readout, length
        self._config, self._step, self._cache = config, step, cache

    def feed(self, token: Token) -> Readout:
        """Feeds one token (its value where it has one, else the id's embedding) and returns the new readout.

        Raises:
          ValueError: the context is full.
        """
        if self.length >= self._config.text.max_context:
            raise ValueError(f"the context of {self.length} positions is full")
        kind, value = fed_as(token.value)
        readout, self._cache = self._step(
            ids=np.full(1, token.id, np.int32),
            kinds=np.full(1, kind, np.int32),
            values=value[None],
            positions=np.full(1, self.length, np.int32),
            cache=self._cache,
        )
        self.length += 1
        new = _host(readout)
        self.readout = replace(new, router_gap=np.minimum(self.readout.router_gap, new.router_gap))
        return self.readout


def _prefill(params: Params, config: ModelConfig, ids, kinds, values, image, length):
    trace = text.Trace()
    hidden, cache = prefill(params, config, ids, kinds, values, image, trace)
    padding = jnp.arange(ids.shape[1], dtype=jnp.int32)[None] >= length
    gap = jnp.where(padding, jnp.inf, _router_gap(trace)).min(axis=1)
    return _readout(params, config, hidden[:, length - 1], gap), cache


def _step(params: Params, config: ModelConfig, cache: DenseCache, ids, kinds, values, positions, prefix_length):
    trace = text.Trace()
    hidden, cache = decode_step(params, config, cache, ids, kinds, values, positions, prefix_length, trace)
    return _readout(params, config, hidden, _router_gap(trace)[:, 0]), cache


def _router_gap(trace: text.Trace) -> jax.Array:
    """The smallest gap of any layer, float32 [B, T]."""
    gaps = [moe.gap(route) for route in trace.routes]
    return jnp.stack(gaps).min(axis=0) if gaps else jnp.full(trace.hidden[0].shape[:2], jnp.inf, jnp.float32)


def _readout(params: Params, config: ModelConfig, hidden: jax.Array, gap: jax.Array) -> tuple[jax.Array, ...]:
    return hidden.astype(jnp.float32), *read(params, config, hidden), gap


def _host(readout: tuple[jax.Array, ...]) -> Readout:
    return Readout(*(np.asarray(part)[0] for part in readout))


def allowed_ids(state: State, vocab_size: int, constraint: Constraint | None) -> np.ndarray:
    """bool [V]: what the rules of a state and the host's constraint allow."""
    mask = np.full(vocab_size, state.allow is None)
    mask[list(state.suppress if state.allow is None else state.allow)] = state.allow is not None
    if constraint is not None:
        words, ids = constraint.mask(), np.arange(vocab_size)
        mask &= (words[ids // 32] >> (ids % 32).astype(np.uint32)) & np.uint32(1) > 0
    return mask


def _draw(logits: np.ndarray, settings: Settings, index: int, stream: int) -> tuple[int, float]:
    """The chosen entry and its log-probability at temperature 1."""
    seed = settings.seed or 0
    scores = sampling.perturbed_scores(logits, settings.temperature, settings.top_p, seed, index, stream)
    chosen = int(np.argmax(scores))
    return chosen, float(sampling.log_softmax(logits)[chosen])
