"""From a skill and an image to a result, through the engine."""

from __future__ import annotations

import dataclasses
import os
import secrets
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice
from typing import Any

from jaxphoton.answers import take_restriction
from jaxphoton.config import ModelConfig
from jaxphoton.engine.engine import Engine, OnToken, Submission
from jaxphoton.engine.metrics import RequestMetrics
from jaxphoton.engine.request import ImageInput, Request
from jaxphoton.image.pool import ImagePool
from jaxphoton.image.prepare import Prepared, prepare
from jaxphoton.prompt.detokenizer import Detokenizer
from jaxphoton.prompt.tokenizer import Tokenizer
from jaxphoton.results import BatchItem, EncodedImage, Result, TokenStream
from jaxphoton.skills.base import Generation, Skill, Token
from jaxphoton.skills.grammar import FinishReason
from jaxphoton.skills.query import Query
from jaxphoton.skills.settings import MAX_SEED, Settings


class Frontend:
    """Prepares images, submits requests, reads results back.

    Attributes:
      on_image: called with each picture that was prepared, on the thread that asked for it; must not raise.
    """

    def __init__(self, engine: Engine, config: ModelConfig, tokenizer: Tokenizer, max_pixels: int):
        self.engine = engine
        self._config, self._tokenizer, self._max_pixels = config, tokenizer, max_pixels
        self._lock = threading.Lock()
        self._pool: ImagePool | None = None
        self.on_image: Callable[[Prepared], None] | None = None

    def __call__(
        self, skill: Skill, image: Any, given: Mapping[str, Any] | None, stream_key: str | None = None
    ) -> Result | list[Result]:
        """One result, or for a list of images a list of them."""
        settings = make_settings(skill, given)
        if isinstance(image, (list, tuple)):
            if stream_key is not None:
                raise ValueError("stream=True takes one image")
            return self._many(skill, image, given)
        if stream_key is not None:
            return self._stream(skill, image, settings, stream_key)
        submission = self.submit(skill, image, settings)
        return self.result(skill, settings, submission.future.result(), submission.metrics)

    def encode(self, image: Any) -> EncodedImage:
        """Decodes and crops here and now; an EncodedImage passes through."""
        if isinstance(image, EncodedImage):
            if image.vision != self._config.vision:
                raise ValueError("this EncodedImage was made for a model with other crops")
            return image
        return self._encoded(prepare(image, self._config.vision, max_pixels=self._max_pixels))

    def batch(self, skill: Skill, images: Iterable[Any], given: Mapping[str, Any] | None) -> Iterator[BatchItem]:
        """Yields items as they finish; at most twice the engine's rows are under way.

        Images are prepared ahead of the engine in worker processes.
        """
        make_settings(skill, given)
        return self._batch(skill, images, given, self._worker_pool())

    def close(self) -> None:
        """Cancels what is under way and stops the engine and the image workers."""
        self.engine.shutdown(wait=False)
        with self._lock:
            if self._pool is not None:
                self._pool.close()

    def _worker_pool(self) -> ImagePool | None:
        with self._lock:
            workers = self.engine.programs.engine.image_workers
            if workers is None:
                workers = max(1, min(8, (os.cpu_count() or 1) // 2))
            if self._pool is None and workers:
                self._pool = ImagePool(self._config.vision, workers, max_pixels=self._max_pixels)
            return self._pool

    def _batch(
        self, skill: Skill, images: Iterable[Any], given: Mapping[str, Any] | None, pool: ImagePool | None
    ) -> Iterator[BatchItem]:
        room = 2 * self.engine.programs.engine.max_rows
        source = enumerate(images)
        preparing: dict[Future[Any], Hashable] = {}
        running: dict[Future[Any], tuple[Hashable, Settings, Submission]] = {}
        try:
            while True:
                for position, item in islice(source, room - len(preparing) - len(running)):
                    key, image = item if isinstance(item, tuple) and len(item) == 2 else (position, item)
                    preparing[self._prepare_later(image, pool)] = key
                if not preparing and not running:
                    return
                for future in wait([*preparing, *running], return_when=FIRST_COMPLETED).done:
                    if future in preparing:
                        key, settings = preparing.pop(future), make_settings(skill, given)
                        try:
                            submission = self.submit(skill, future.result(), settings)
                            running[submission.future] = key, settings, submission
                        except Exception as error:  # this image's fault; the others go on
                            yield BatchItem(key, None, error)
                    else:
                        yield self._item(skill, *running.pop(future))
        finally:
            # A reader that stops early gives the rest up.
            for future in preparing:
                future.cancel()
            for _, _, submission in running.values():
                self.engine.cancel(submission)

    def _prepare_later(self, image: Any, pool: ImagePool | None) -> Future[Any]:
        """A future of a Prepared or an EncodedImage."""
        if pool is not None and not isinstance(image, EncodedImage):
            return pool.submit(image)
        future: Future[EncodedImage] = Future()
        try:
            future.set_result(self.encode(image))
        except Exception as error:
            future.set_exception(error)
        return future

    def _item(self, skill: Skill, key: Hashable, settings: Settings, submission: Submission) -> BatchItem:
        error = submission.future.exception()
        if isinstance(error, Exception):
            return BatchItem(key, None, error)
        return BatchItem(key, self.result(skill, settings, submission.future.result(), submission.metrics), None)

    def _encoded(self, prepared: Prepared) -> EncodedImage:
        on_image = self.on_image
        if on_image is not None:
            on_image(prepared)
        return EncodedImage(
            ImageInput(prepared.digest, prepared.crops, prepared.seconds),
            prepared.size,
            prepared.notes,
            self._config.vision,
        )

    def _many(self, skill: Skill, images: Iterable[Any], given: Mapping[str, Any] | None) -> list[Result]:
        results: dict[Hashable, Result] = {}
        # Pairs, so that an image that is itself a tuple keeps its position as key.
        for position, result, error in self._batch(skill, enumerate(images), given, None):
            if error is not None:
                raise error
            assert result is not None
            results[position] = result
        return [results[position] for position in range(len(results))]

    def submit(
        self,
        skill: Skill,
        image: Any,
        settings: Settings,
        on_token: OnToken | None = None,
        deadline: float | None = None,
        priority: int = 0,
    ) -> Submission:
        """Hands a request to the engine; see `Engine.submit` and `Request`.

        Raises:
          ValueError: no image where the skill needs one, or what the engine refuses.
          EngineError: as in `Engine.submit`.
        """
        if image is None and skill.needs_image:
            raise ValueError(f"{skill.name} needs an image")
        if isinstance(image, Prepared):
            image = self._encoded(image)
        ready = None if image is None else self.encode(image).image
        constraint = skill.constraint if isinstance(skill, Query) else None
        request = Request(
            skill.prompt, skill.grammar, settings, ready, constraint, deadline=deadline, priority=priority
        )
        return self.engine.submit(request, on_token)

    def result(
        self, skill: Skill, settings: Settings, generation: Generation, metrics: RequestMetrics | None = None
    ) -> Result:
        """What the skill makes of a generation."""
        result = Result(skill.parse(generation, self._tokenizer.decode))
        result.seed = settings.seed or 0
        result.close(generation, metrics)
        return result

    def _stream(self, skill: Skill, image: Any, settings: Settings, key: str) -> Result:
        tokens = TokenStream()
        submission = self.submit(skill, image, settings, tokens.put)
        submission.future.add_done_callback(tokens.end)
        result = Result()
        result.seed = settings.seed or 0
        steps = iter(tokens)
        if isinstance(skill, Query) and skill.reasoning:
            result.update(self._reasoning(skill, steps))
        result[key] = self._pieces(submission, steps, result)
        return result

    def detokenizer(self) -> Detokenizer:
        return Detokenizer(self._tokenizer)

    def thought(self, skill: Query, tokens: Sequence[Token], finish: FinishReason | None) -> dict[str, Any]:
        """The reasoning of an answer that has not begun yet."""
        return skill.parse(Generation(tuple(tokens), finish or "length"), self._tokenizer.decode)

    def _reasoning(self, skill: Query, steps: Iterator[tuple[Token, FinishReason | None]]) -> dict[str, Any]:
        """Takes the steps of the reasoning, up to the id that opens the answer."""
        thought: list[Token] = []
        finish: FinishReason | None = None
        for token, finish in steps:
            thought.append(token)
            if finish is not None or skill.answer_start(thought) <= len(thought):
                break
        return self.thought(skill, thought, finish)

    def _pieces(
        self, submission: Submission, steps: Iterator[tuple[Token, FinishReason | None]], result: Result
    ) -> Iterator[str]:
        detokenizer = self.detokenizer()
        try:
            for token, finish in steps:
                # The stop id is not text.
                if finish != "stop" and (piece := detokenizer.push(token.id)):
                    yield piece
            if rest := detokenizer.finish():
                yield rest
            result.close(submission.future.result(), submission.metrics)
        finally:
            # A reader that stops early gives the rest up.
            if not submission.future.done():
                self.engine.cancel(submission)


def make_settings(skill: Skill, given: Mapping[str, Any] | None) -> Settings:
    """The request's settings: a seed is drawn where none is given, and objects set the budget of ids."""
    if isinstance(skill, Query):
        given, _ = take_restriction(given)  # the skill's constraint already
    settings = Settings.parse(given, skill.defaults)
    seed = secrets.randbelow(MAX_SEED + 1) if settings.seed is None else settings.seed
    budget = settings.max_tokens
    if skill.tokens_per_object and (given or {}).get("max_tokens") is None:
        budget = skill.tokens_per_object * settings.max_objects + 1
    return dataclasses.replace(settings, seed=seed, max_tokens=budget)
