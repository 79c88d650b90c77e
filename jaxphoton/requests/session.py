"""From a skill and an image to a result, through the engine."""

from __future__ import annotations

import dataclasses
import os
import secrets
import threading
import weakref
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from jaxphoton.constraints import take_restriction
from jaxphoton.constraints.grammar import FinishReason
from jaxphoton.engine.engine import Engine, OnToken, Submission
from jaxphoton.engine.metrics import RequestMetrics
from jaxphoton.engine.request import ImageInput, Request
from jaxphoton.image.pool import ImagePool
from jaxphoton.image.prepare import Prepared, prepare
from jaxphoton.models.moondream.config import ModelConfig
from jaxphoton.models.moondream.skills.query import Query
from jaxphoton.models.moondream.skills.segment import Outline, Segment
from jaxphoton.prompt.detokenizer import Detokenizer
from jaxphoton.prompt.tokenizer import Tokenizer
from jaxphoton.requests.answer import Answer, BatchItem, Result
from jaxphoton.requests.ask import Ask, Job
from jaxphoton.requests.dispatcher import Desk
from jaxphoton.requests.errors import ModelClosed
from jaxphoton.requests.images import EncodedImage
from jaxphoton.requests.settings import MAX_SEED, Settings
from jaxphoton.requests.streams import TokenStream
from jaxphoton.requests.tokens import Generation, Skill, Token

T = TypeVar("T")
Steps = Iterator[tuple[Token, FinishReason | None]]


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A request of a job."""

    skill: Skill
    settings: Settings
    submission: Submission

    @property
    def future(self) -> Future[Generation]:
        return self.submission.future


class Frontend:
    """Prepares images, submits requests, reads results back. Closing it, dropping it and the end of the interpreter end
    the engine: streams and batches hold it, so that a model may be dropped while they are read.

    Args:
      image_rules: arguments of `prepare` for every image.

    Attributes:
      on_image: called with each picture that was prepared, on the thread that asked for it; must not raise.
    """

    def __init__(self, engine: Engine, config: ModelConfig, tokenizer: Tokenizer, image_rules: Mapping[str, Any]):
        self.engine = engine
        self._config, self._tokenizer, self._rules = config, tokenizer, image_rules
        self._lock = threading.Lock()
        self._pool: ImagePool | None = None
        self._desks: weakref.WeakSet[Desk] = weakref.WeakSet()
        self._closed = False
        # A forgotten model must not leave a thread that talks to the device while Python exits.
        weakref.finalize(self, engine.shutdown, wait=False)
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
        with self._given_up_on_leaving(submission):
            return self.result(skill, settings, submission.future.result(), submission.metrics)

    def encode(self, image: Any) -> EncodedImage:
        """Decodes and crops here and now; an EncodedImage passes through."""
        if isinstance(image, EncodedImage):
            if image.vision != self._config.vision:
                raise ValueError("this EncodedImage was made for a model with other crops")
            return image
        return self._encoded(prepare(image, self._config.vision, **self._rules))

    def encode_beside(self, image: Any, many: bool) -> EncodedImage:
        """The same for a thread beside others: in the image workers where they run, and where there are many images,
        for which they are started."""
        with self._lock:
            running = self._pool is not None
        pool = self._worker_pool() if (running or many) and not isinstance(image, EncodedImage) else None
        if pool is None:
            return self.encode(image)
        try:
            return self._encoded(pool.submit(image).result())
        except RuntimeError as error:
            if self._closed:
                raise ModelClosed from error
            raise

    def batch(self, skill: Skill, images: Iterable[Any], given: Mapping[str, Any] | None) -> Iterator[BatchItem]:
        """Yields items as they finish; at most `EngineConfig.batch_requests` are under way.

        Images are read in a thread of their own, and prepared ahead of the engine in worker processes. Other batches
        and single requests may run beside it: where the engine's queue is full, this waits.

        Raises:
          TypeError: `images` is one image.
          ModelClosed (while it is read): the model was closed; what had finished before has been yielded.
        """
        if isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike)):
            raise TypeError(f"images must be an iterable of images, not a single one ({type(images).__name__})")
        make_settings(skill, given)
        return self._batch(skill, images, given, self._worker_pool())

    def answer(self, jobs: Iterable[Job], skill_of: Callable[[Ask], Skill]) -> Iterator[Answer]:
        """Answers jobs as they finish, as `batch` does."""
        return self._answers(jobs, skill_of, self._worker_pool())

    def close(self) -> None:
        """Ends what is under way with ModelClosed, and stops the engine and the image workers. May be called again."""
        with self._lock:
            self._closed = True
            pool, desks = self._pool, list(self._desks)
        for desk in desks:
            desk.stop(ModelClosed())
        self.engine.shutdown(wait=False)
        if pool is not None:
            pool.close()

    def _worker_pool(self) -> ImagePool | None:
        with self._lock:
            if self._closed:  # a pool opened now would never be closed
                raise ModelClosed
            config = self.engine.config
            workers = config.image_workers
            if workers is None:
                workers = max(1, min(8, (os.cpu_count() or 1) // 2))
            if self._pool is None and workers:
                self._pool = ImagePool(self._config.vision, workers, timeout=config.image_timeout, **self._rules)
            return self._pool

    def _answers(
        self, jobs: Iterable[Job], skill_of: Callable[[Ask], Skill], pool: ImagePool | None
    ) -> Generator[Answer, None, None]:
        most = self.engine.config.batch_requests
        desk = Desk(
            jobs,
            lambda job: self._prepare_later(job, pool),
            lambda job, picture: self._ask(job, picture, skill_of),
            self._answered,
            lambda asked: self.engine.cancel(asked.submission),
            room=most,
            most=most,
        )
        with self._lock:
            if self._closed:
                raise ModelClosed
            self._desks.add(desk)
        with closing(desk.answers()) as answers:
            for answer in answers:
                # Of a model that was closed all parts end, each in its own words.
                if self._closed and isinstance(answer.error, RuntimeError):
                    raise ModelClosed from answer.error
                yield answer

    def _batch(
        self, skill: Skill, images: Iterable[Any], given: Mapping[str, Any] | None, pool: ImagePool | None
    ) -> Generator[BatchItem, None, None]:
        ask = (Ask(skill.name, settings=given),)
        pairs = (
            item if isinstance(item, tuple) and len(item) == 2 else (position, item)
            for position, item in enumerate(images)
        )
        jobs = (Job(key, image, ask) for key, image in pairs)
        with closing(self._answers(jobs, lambda _: skill, pool)) as answers:
            for answer in answers:
                yield BatchItem(answer.key, answer.results[0] if answer.results else None, answer.error)

    def _prepare_later(self, job: Job, pool: ImagePool | None) -> Future[Any]:
        """A future of a Prepared or an EncodedImage."""
        if pool is not None and not isinstance(job.image, EncodedImage):
            return pool.submit(job.image, name=job.name)
        future: Future[EncodedImage] = Future()
        try:
            future.set_result(self.encode(job.image))
        except Exception as error:
            future.set_exception(error)
        return future

    def _ask(self, job: Job, picture: Any, skill_of: Callable[[Ask], Skill]) -> list[_Asked]:
        """Submits all that is asked about a picture, or nothing."""
        image, asked = self._encoded(picture) if isinstance(picture, Prepared) else picture, []
        try:
            for ask in job.asks:
                skill = skill_of(ask)
                settings = make_settings(skill, ask.settings)
                asked.append(_Asked(skill, settings, self.submit(skill, image, settings, wait=True)))
        except BaseException:  # an interrupt too: it may have to wait
            for each in asked:
                self.engine.cancel(each.submission)
            raise
        return asked

    def _answered(self, job: Job, picture: Any, asked: list[_Asked]) -> Answer:
        results = tuple(
            self.result(each.skill, each.settings, each.future.result(), each.submission.metrics) for each in asked
        )
        return Answer(job.key, results, None, picture.size, picture.notes)

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
        with closing(self._batch(skill, enumerate(images), given, None)) as items:
            for position, result, error in items:
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
        wait: bool = False,
    ) -> Submission:
        """Hands a request to the engine; see `Engine.submit` and `Request`.

        Raises:
          ValueError: no image where the skill needs one, or what the engine refuses.
          EngineError: as in `Engine.submit`.
        """
        if image is None and skill.needs_image:
            raise ValueError(f"{skill.name} needs an image")
        ready = None if image is None else self.encode(image).image
        constraint = skill.constraint if isinstance(skill, Query) else None
        request = Request(
            skill.prompt, skill.grammar, settings, ready, constraint, deadline=deadline, priority=priority
        )
        return self.engine.submit(request, on_token, wait)

    def result(
        self, skill: Skill, settings: Settings, generation: Generation, metrics: RequestMetrics | None = None
    ) -> Result:
        """What the skill makes of a generation."""
        result = Result(skill.parse(generation, self._tokenizer.decode))
        result.seed = settings.seed or 0
        result.close(generation, metrics)
        return result

    def stream_segment(self, skill: Segment, image: Any, given: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
        """The events of a segmentation while it is generated; the last is the result."""
        settings = make_settings(skill, given)
        if isinstance(image, (list, tuple)):
            raise ValueError("stream=True takes one image")
        return _begun(self._events(skill, settings, *self._submit_stream(skill, image, settings)))

    def _events(
        self, skill: Segment, settings: Settings, submission: Submission, steps: Steps
    ) -> Generator[dict, None, None]:
        outline = self.outline()
        with self._given_up_on_leaving(submission):
            yield {}  # see `_begun`
            for token, finish in steps:
                if finish != "stop":
                    yield from outline.push(token)
            yield self.completed(skill, settings, submission.future.result(), submission.metrics)

    @contextmanager
    def _given_up_on_leaving(self, submission: Submission) -> Iterator[None]:
        """Who stops reading, or is interrupted while it waits, gives the rest of a request up."""
        try:
            yield
        finally:
            if not submission.future.done():
                self.engine.cancel(submission)

    def outline(self) -> Outline:
        return Outline(self._tokenizer.decode)

    def completed(
        self, skill: Skill, settings: Settings, generation: Generation, metrics: RequestMetrics | None
    ) -> Result:
        """The last event of a segmentation."""
        result = self.result(skill, settings, generation, metrics)
        result["completed"] = True
        return result

    def _submit_stream(self, skill: Skill, image: Any, settings: Settings) -> tuple[Submission, Steps]:
        tokens = TokenStream()
        submission = self.submit(skill, image, settings, tokens.put)
        submission.future.add_done_callback(tokens.end)
        return submission, iter(tokens)

    def _stream(self, skill: Skill, image: Any, settings: Settings, key: str) -> Result:
        submission, steps = self._submit_stream(skill, image, settings)
        result = Result()
        result.seed = settings.seed or 0
        # Not the result itself: it holds the pieces, and whoever drops both must not wait for the garbage collection.
        pieces = _begun(self._pieces(submission, steps, weakref.ref(result)))
        if isinstance(skill, Query) and skill.reasoning:
            try:
                result.update(self._reasoning(skill, submission, steps))
            except BaseException:
                pieces.close()
                raise
        result[key] = pieces
        return result

    def detokenizer(self) -> Detokenizer:
        return Detokenizer(self._tokenizer)

    def thought(self, skill: Query, tokens: Sequence[Token], finish: FinishReason | None) -> dict[str, Any]:
        """The reasoning of an answer that has not begun yet."""
        return skill.parse(Generation(tuple(tokens), finish or "length"), self._tokenizer.decode)

    def _reasoning(self, skill: Query, submission: Submission, steps: Steps) -> dict[str, Any]:
        """Takes the steps of the reasoning, up to the id that opens the answer."""
        thought: list[Token] = []
        finish: FinishReason | None = None
        for token, finish in steps:
            thought.append(token)
            if finish is not None or skill.answer_start(thought) <= len(thought):
                break
        else:
            submission.future.result()  # raises what has ended it
        return self.thought(skill, thought, finish)

    def _pieces(self, submission: Submission, steps: Steps, result: weakref.ref[Result]) -> Generator[str, None, None]:
        detokenizer = self.detokenizer()
        with self._given_up_on_leaving(submission):
            yield ""  # see `_begun`
            for token, finish in steps:
                # The stop id is not text.
                if finish != "stop" and (piece := detokenizer.push(token.id)):
                    yield piece
            if rest := detokenizer.finish():
                yield rest
            generation = submission.future.result()
            if (kept := result()) is not None:
                kept.close(generation, submission.metrics)


def _begun(pieces: Generator[T, None, None]) -> Generator[T, None, None]:
    """A generator taken to its first, empty piece: from here on it cleans up even if it is dropped unread."""
    next(pieces)
    return pieces


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
