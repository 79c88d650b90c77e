"""From a skill and an image to a result, through the engine."""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from jaxphoton.config import ModelConfig
from jaxphoton.engine.engine import Engine, Submission
from jaxphoton.engine.request import ImageInput, Request
from jaxphoton.image.crops import cut_crops
from jaxphoton.image.decode import decode
from jaxphoton.prompt.detokenizer import Detokenizer
from jaxphoton.prompt.tokenizer import Tokenizer
from jaxphoton.results import BatchItem, EncodedImage, Result, TokenStream, text_pieces
from jaxphoton.skills.base import Generation, Skill, Token
from jaxphoton.skills.grammar import FinishReason
from jaxphoton.skills.query import Query
from jaxphoton.skills.settings import MAX_SEED, Settings


class Frontend:
    """Prepares images, submits requests, reads results back."""

    def __init__(self, engine: Engine, config: ModelConfig, tokenizer: Tokenizer, max_pixels: int):
        self.engine = engine
        self._config, self._tokenizer, self._max_pixels = config, tokenizer, max_pixels

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
        return self._result(skill, settings, self._submit(skill, image, settings).future.result())

    def encode(self, image: Any) -> EncodedImage:
        """Decodes and crops; an EncodedImage passes through."""
        if isinstance(image, EncodedImage):
            if image.vision != self._config.vision:
                raise ValueError("this EncodedImage was made for a model with other crops")
            return image
        decoded = decode(image, max_pixels=self._max_pixels)
        pixels = decoded.pixels
        digest = hashlib.sha256(repr(pixels.shape).encode())
        digest.update(pixels.data if pixels.flags.c_contiguous else pixels.tobytes())
        ready = ImageInput(digest.digest(), cut_crops(pixels, self._config.vision))
        return EncodedImage(ready, (pixels.shape[0], pixels.shape[1]), decoded.notes, self._config.vision)

    def batch(self, skill: Skill, images: Iterable[Any], given: Mapping[str, Any] | None) -> Iterator[BatchItem]:
        """Yields items as they finish; at most twice the engine's rows are under way."""
        make_settings(skill, given)
        return self._batch(skill, images, given)

    def close(self) -> None:
        self.engine.shutdown(wait=False)

    def _batch(self, skill: Skill, images: Iterable[Any], given: Mapping[str, Any] | None) -> Iterator[BatchItem]:
        room = 2 * self.engine.programs.engine.max_rows
        under_way: dict[Future, tuple[Any, Settings, Submission]] = {}
        try:
            for position, item in enumerate(images):
                key, image = item if isinstance(item, tuple) and len(item) == 2 else (position, item)
                settings = make_settings(skill, given)
                try:
                    submission = self._submit(skill, image, settings)
                    under_way[submission.future] = (key, settings, submission)
                except Exception as error:  # this image's fault; the others go on
                    yield BatchItem(key, None, error)
                yield from self._finished(skill, under_way, block=len(under_way) >= room)
            while under_way:
                yield from self._finished(skill, under_way, block=True)
        finally:
            # A reader that stops early gives the rest up.
            for _, _, submission in under_way.values():
                self.engine.cancel(submission)

    def _finished(
        self, skill: Skill, under_way: dict[Future, tuple[Any, Settings, Submission]], block: bool
    ) -> Iterator[BatchItem]:
        done = wait(under_way, None if block else 0, return_when=FIRST_COMPLETED).done
        for future in sorted(done, key=list(under_way).index):
            key, settings, _ = under_way.pop(future)
            error = future.exception()
            if isinstance(error, Exception):
                yield BatchItem(key, None, error)
            else:
                yield BatchItem(key, self._result(skill, settings, future.result()), None)

    def _many(self, skill: Skill, images: Iterable[Any], given: Mapping[str, Any] | None) -> list[Result]:
        results: dict[int, Result] = {}
        for position, result, error in self._batch(skill, enumerate(images), given):
            if error is not None:
                raise error
            assert result is not None
            results[position] = result  # type: ignore[index]
        return [results[position] for position in range(len(results))]

    def _submit(self, skill: Skill, image: Any, settings: Settings, on_token: Any = None) -> Submission:
        if image is None and skill.needs_image:
            raise ValueError(f"{skill.name} needs an image")
        ready = None if image is None else self.encode(image).image
        return self.engine.submit(Request(skill.prompt, skill.grammar, settings, ready), on_token)

    def _result(self, skill: Skill, settings: Settings, generation: Generation) -> Result:
        result = Result(skill.parse(generation, self._tokenizer.decode))
        result.seed = settings.seed or 0
        result.close(generation)
        return result

    def _stream(self, skill: Skill, image: Any, settings: Settings, key: str) -> Result:
        tokens = TokenStream()
        submission = self._submit(skill, image, settings, tokens.put)
        submission.future.add_done_callback(tokens.end)
        result = Result()
        result.seed = settings.seed or 0
        steps = iter(tokens)
        if isinstance(skill, Query) and skill.reasoning:
            result.update(self._reasoning(skill, steps))
        result[key] = self._pieces(submission, steps, result)
        return result

    def _reasoning(self, skill: Query, steps: Iterator[tuple[Token, FinishReason | None]]) -> dict[str, Any]:
        """Takes the steps of the reasoning, up to the id that opens the answer."""
        thought: list[Token] = []
        finish: FinishReason | None = None
        for token, finish in steps:
            thought.append(token)
            if finish is not None or skill.answer_start(thought) <= len(thought):
                break
        return skill.parse(Generation(tuple(thought), finish or "length"), self._tokenizer.decode)

    def _pieces(
        self, submission: Submission, steps: Iterator[tuple[Token, FinishReason | None]], result: Result
    ) -> Iterator[str]:
        detokenizer = Detokenizer(self._tokenizer)
        try:
            yield from text_pieces(steps, detokenizer.push, detokenizer.finish)
            result.close(submission.future.result())
        finally:
            # A reader that stops early gives the rest up.
            if not submission.future.done():
                self.engine.cancel(submission)


def make_settings(skill: Skill, given: Mapping[str, Any] | None) -> Settings:
    """The request's settings: a seed is drawn where none is given, and objects set the budget of ids."""
    settings = Settings.parse(given, skill.defaults)
    seed = secrets.randbelow(MAX_SEED + 1) if settings.seed is None else settings.seed
    budget = settings.max_tokens
    if skill.tokens_per_object and (given or {}).get("max_tokens") is None:
        budget = skill.tokens_per_object * settings.max_objects + 1
    return dataclasses.replace(settings, seed=seed, max_tokens=budget)
