"""The truth: one request of any family at a time, a dense cache, a plain Python loop.

Slow on purpose. Everything faster is compared with it, so it shares no sampling, grammar or cache code with
the engine: it samples in NumPy (`oracle.sampling`) and follows the grammar's rules, not the device tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxphoton.constraints.grammar import Grammar, Replay, State
from jaxphoton.constraints.protocol import Constraint, MakeConstraint
from jaxphoton.image.crops import Crops
from jaxphoton.layers.cache import DenseCache
from jaxphoton.models.adapters import Adapter
from jaxphoton.models.protocol import Family, Prompt
from jaxphoton.oracle import programs, sampling
from jaxphoton.requests.settings import Settings
from jaxphoton.requests.tokens import Generation, Token

PROMPT_STEP = 64  # prompts are padded to a multiple of this, so that few lengths compile
ADAPTER_RANK = 8  # adapters are padded to it, so that few ranks compile

# draw(logits float32 [n], stream of random words) -> (chosen entry, its log-probability)
Draw = Callable[[np.ndarray, int], tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as prompts take it: its crops, and their embeddings [N, D]."""

    crops: Crops
    embeddings: jax.Array


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one position predicts, float32: hidden [D] (as the network's `forward` leaves it) and logits [V]. `margin`
    [] is the smallest of the network's margins in this and all earlier positions, inf where nothing was chosen: a
    computation that differs by more may have gone another way."""

    hidden: np.ndarray
    logits: np.ndarray
    margin: np.ndarray


@dataclass(frozen=True, slots=True)
class OracleRequest:
    """One request; `settings.seed` must be set unless greedy. `further` are for the places of `Prompt.pictures`."""

    prompt: Prompt
    grammar: Grammar
    settings: Settings
    picture: Picture | None = None
    constraint: MakeConstraint | None = None
    adapter: Adapter | None = None
    further: Sequence[Picture] = ()


class Oracle:
    """Runs requests of one model, one after the other; `params` is the tree of the family's network."""

    def __init__(self, params: Any, family: Family):
        self.params, self.family = params, family
        network = family.network
        self._decoder = network.decoder(params)
        self._encode = jax.jit(partial(network.encode, images=1, kernels=programs.PLAIN))
        self._prefill = jax.jit(partial(programs.prefill, family))
        self._step = jax.jit(partial(programs.step, family), donate_argnames="cache")
        self._read = jax.jit(partial(programs.read, family, self._drawn))
        self._draw: Draw
        self._fault: Exception | None = None

    def encode_image(self, crops: Crops) -> Picture:
        """A picture's crops with their embeddings."""
        packed = self.family.pack([crops], 1, len(crops.pixels), lambda index: nullcontext())
        return Picture(crops, self._encode(self.family.network.encoder(self.params), *packed)[0])

    def start(
        self,
        prompt: Prompt,
        picture: Picture | None = None,
        adapter: Adapter | None = None,
        further: Sequence[Picture] = (),
    ) -> Session:
        """Prefills a prompt.

        Raises:
          ValueError: the prompt is longer than the model's context, or the adapter does not fit the model.
        """
        params = self._decoder if adapter is None else self._adapted(adapter)
        crops = tuple(each.crops for each in further)
        segments = self.family.segments(prompt, None if picture is None else picture.crops, crops)
        prefix, limit = len(segments.prefix), self.family.max_context
        length = prefix + len(segments.ids)
        if length >= limit:
            raise ValueError(f"the prompt has {length} positions; this model's context holds {limit}")
        padding = min(-length % PROMPT_STEP, limit - length)
        embeddings = None if picture is None else picture.embeddings[None]
        prediction, cache = self._prefill(
            params,
            prefix=None if picture is None else segments.prefix[None],
            embeddings=embeddings,
            ids=np.pad(segments.ids, (0, padding))[None],
            fed=np.pad(segments.fed, ((0, padding), (0, 0)))[None],
            length=np.int32(length),
            blocks=programs.block_ids(segments, self.family)[None],
            further=[
                programs.Further(segments.ids[slice(*block)][None], np.int32(prefix + block[0]), each.embeddings[None])
                for block, each in zip(segments.blocks, further, strict=True)
            ],
        )
        return Session(self.family, partial(self._step, params), cache, length, _host(prediction))

    def generate(self, request: OracleRequest) -> Iterator[tuple[Token, Replay]]:
        """Yields each token as it is chosen, with the replay that took it; its `finish` says whether it is the last."""
        session = self.start(request.prompt, request.picture, request.adapter, request.further)
        room = self.family.max_context - session.length
        replay = Replay(request.grammar, min(request.settings.max_tokens, room), request.settings.max_objects)
        constraint = None if request.constraint is None else request.constraint()
        while True:
            token = self._choose(session.prediction, replay, request.settings, constraint)
            finish = replay.advance(token.id)
            yield token, replay
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

    def replay(
        self,
        prompt: Prompt,
        picture: Picture | None,
        tokens: Sequence[Token],
        adapter: Adapter | None = None,
        further: Sequence[Picture] = (),
    ) -> list[Prediction]:
        """Teacher forcing: the prediction that precedes each of `tokens`, and the one behind the last."""
        session = self.start(prompt, picture, adapter, further)
        return [session.prediction, *(session.feed(token) for token in tokens)]

    def read(self, prediction: Prediction, token: int, draw: Draw) -> Token:
        """A token with what the family reads beside it, drawn by `draw`; its log-probability is that of the reading."""
        readout = self.family.readout
        if readout is None:
            return Token(token)
        self._draw, self._fault = draw, None
        read, logprob = jax.device_get(self._read(self._decoder, prediction.hidden[None], np.full(1, token, np.int32)))
        if self._fault is not None:
            raise self._fault
        columns = [int(column[0]) for column in read]
        taken = readout.taken(token, columns) if columns[0] >= 0 else (None, None)
        return Token(token, *taken, float(logprob[0]))

    def _drawn(self, logits: jax.Array, stream: jax.Array, needed: jax.Array) -> tuple[np.ndarray, np.ndarray]:
        """Called back while `programs.read` runs; an exception waits for its end."""
        chosen, logprob = 0, 0.0
        if needed[0] and self._fault is None:
            try:
                chosen, logprob = self._draw(np.asarray(logits)[0], int(stream))
            except Exception as error:
                self._fault = error
        return np.full(1, chosen, np.int32), np.full(1, logprob, np.float32)

    def _adapted(self, adapter: Adapter) -> Any:
        """The parameters with an adapter, which is the only one that there is."""
        network = self.family.network
        one = network.adapter_slot(
            adapter, network.dtype(self.params), max(ADAPTER_RANK, network.adapter_rank(adapter))
        )
        return network.with_adapters(self._decoder, jax.tree.map(jnp.asarray, one), jnp.zeros(1, jnp.int32))

    def _choose(
        self, prediction: Prediction, replay: Replay, settings: Settings, constraint: Constraint | None
    ) -> Token:
        state, index = replay.rules, replay.tokens
        allowed = allowed_ids(state, len(prediction.logits), constraint)
        logits = np.where(allowed, prediction.logits, -np.inf)
        token, logprob = sampling.draw(logits, settings, index, sampling.TOKEN)
        if not state.reads:
            return Token(token, logprob=logprob)
        read = self.read(prediction, token, lambda logits, stream: sampling.draw(logits, settings, index, stream))
        return replace(read, logprob=logprob + read.logprob)


class Session:
    """One sequence being generated.

    Attributes:
      prediction: of the last fed position.
      length: positions fed so far.
    """

    def __init__(self, family: Family, step: Callable, cache: DenseCache, length: int, prediction: Prediction):
        self.prediction, self.length = prediction, length
        self._family, self._step, self._cache = family, step, cache

    def feed(self, token: Token) -> Prediction:
        """Feeds one token (its value where it has one, else the id's embedding) and returns the new prediction.

        Raises:
          ValueError: the context is full.
        """
        readout = self._family.readout
        if self.length >= self._family.max_context:
            raise ValueError(f"the context of {self.length} positions is full")
        fed = np.zeros((1, 0 if readout is None else readout.fed), np.int32)
        if readout is not None and token.value is not None:
            fed[0] = readout.feed(token.value)
        prediction, self._cache = self._step(
            ids=np.full((1, 1), token.id, np.int32),
            fed=fed[None],
            positions=np.full((1, 1), self.length, np.int32),
            cache=self._cache,
        )
        self.length += 1
        new = _host(prediction)
        self.prediction = replace(new, margin=np.minimum(self.prediction.margin, new.margin))
        return self.prediction


def _host(prediction: tuple[jax.Array, ...]) -> Prediction:
    return Prediction(*(np.asarray(part)[0] for part in prediction))


def allowed_ids(state: State, vocab_size: int, constraint: Constraint | None) -> np.ndarray:
    """bool [V]: what the rules of a state and the host's constraint allow."""
    mask = np.full(vocab_size, state.allow is None)
    mask[list(state.suppress if state.allow is None else state.allow)] = state.allow is not None
    if constraint is not None:
        words, ids = constraint.mask(), np.arange(vocab_size)
        mask &= (words[ids // 32] >> (ids % 32).astype(np.uint32)) & np.uint32(1) > 0
    return mask
