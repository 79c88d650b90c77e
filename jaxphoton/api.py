"""`Moondream`: the models as an object with one method a skill."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxphoton import platform
from jaxphoton.config import ModelConfig
from jaxphoton.image.crops import cut_crops
from jaxphoton.image.decode import MAX_PIXELS, decode
from jaxphoton.model.params import Params
from jaxphoton.oracle import Oracle, OracleRequest
from jaxphoton.prompt import templates
from jaxphoton.prompt.detokenizer import Detokenizer
from jaxphoton.prompt.tokenizer import Tokenizer, load_tokenizer
from jaxphoton.skills import registry
from jaxphoton.skills.base import Decode, Generation, Skill, Token
from jaxphoton.skills.caption import Caption
from jaxphoton.skills.detect import Detect
from jaxphoton.skills.grammar import FinishReason, Walk
from jaxphoton.skills.point import Point
from jaxphoton.skills.query import Query
from jaxphoton.skills.settings import MAX_SEED, Settings
from jaxphoton.weights import hub
from jaxphoton.weights.load import load_model

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """An image that the vision encoder has seen; usable in any method of the model that made it.

    Attributes:
      embeddings: [grid * grid, D] on the device.
      size: (height, width) of the picture in pixels.
      notes: what was done to it on the way (rotated, blended, ...).
    """

    embeddings: jax.Array
    size: tuple[int, int]
    notes: tuple[str, ...]
    owner: object = dataclasses.field(repr=False)


class Result(dict):
    """A skill's result in the shape of the `moondream` client.

    Attributes:
      finish_reason: "stop" or "length"; None until a stream has ended.
      seed: what reproduces this result at a temperature above 0.
    """

    finish_reason: FinishReason | None = None
    seed: int


class Moondream:
    """A Moondream model ready to be asked.

    Images may be a path, bytes, a binary file, a PIL image, a uint8 array [height, width, 3] or an EncodedImage.
    `settings` is a mapping with any of temperature, top_p, max_tokens, max_objects, seed; texts are sampled at
    temperature 0.2 and top_p 0.9 unless it says otherwise, boxes and points are greedy.
    """

    def __init__(
        self,
        params: Params,
        config: ModelConfig,
        tokenizer: Tokenizer,
        *,
        clamp_boxes: bool = False,
        max_pixels: int = MAX_PIXELS,
    ):
        self.params, self.config, self.tokenizer = params, config, tokenizer
        self._clamp_boxes, self._max_pixels = clamp_boxes, max_pixels
        self._oracle = Oracle(params, config)
        self._grammars = registry.grammars(config.tokenizer)
        self._owner = object()

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str = "shapes",
        *,
        revision: str | None = None,
        dtype: str | DTypeLike | None = None,
        device: str | jax.Device | None = None,
        sharding: jax.sharding.Sharding | None = None,
        coordinates: str = "bins",
        clamp_boxes: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> Moondream:
        """Loads a model.

        Args:
          path_or_id: a folder or file, a Hugging Face id such as "vikhyatk/moondream2", or "shapes", the small
            model shipped with the package.
          revision: branch, tag or commit of a Hugging Face id.
          dtype: "float32" or "bfloat16"; by default bfloat16, on a CPU float32.
          device: "cpu", "gpu", "cuda:1" or a jax.Device.
          sharding: where parameters go instead of one device.
          coordinates: "bins" (a coordinate is bin / bins) or "bins-1" (bin / (bins - 1), Photon's convention).
          clamp_boxes: cut boxes at the picture's border, as Photon does.
          max_pixels: larger pictures are refused from their header, before they are decoded.

        Raises:
          WeightsError: the checkpoint is missing, broken or of another shape.
          ConfigError: its settings cannot be read.
          ValueError: an unknown dtype or device.
        """
        if device is not None and sharding is not None:
            raise ValueError("give device or sharding, not both")
        chosen = platform.find_device(device)
        kind = platform.default_dtype(chosen) if dtype is None else _dtype(dtype)
        path = hub.resolve(path_or_id, revision)
        config, params = load_model(path, dtype=kind, sharding=sharding or chosen)
        region = dataclasses.replace(config.region, coord_divisor=coordinates)
        config = dataclasses.replace(config, region=region)
        tokenizer = load_tokenizer(hub.resolve_tokenizer(path_or_id, path, config))
        return cls(params, config, tokenizer, clamp_boxes=clamp_boxes, max_pixels=max_pixels)

    def encode_image(self, image: Any) -> EncodedImage:
        """Runs the vision encoder; the result can be asked many times.

        Raises:
          ImageError: the picture cannot be read; the message names it and its fault.
          TypeError: not an image.
        """
        if isinstance(image, EncodedImage):
            if image.owner is not self._owner:
                raise ValueError("this EncodedImage was made by another model")
            return image
        decoded = decode(image, max_pixels=self._max_pixels)
        embeddings = self._oracle.encode_image(cut_crops(decoded.pixels, self.config.vision))
        height, width = decoded.pixels.shape[:2]
        return EncodedImage(embeddings, (height, width), decoded.notes, self._owner)

    def caption(
        self, image: Any, length: str = "normal", stream: bool = False, settings: Mapping[str, Any] | None = None
    ) -> Result:
        """Describes an image: {"caption": text, or with stream=True a generator of pieces}.

        `length` is "short", "normal" or "long", as far as the model knows it.
        """
        skill = Caption(templates.caption_prompt(self.config.tokenizer, length))
        return self._answer(skill, image, settings, "caption" if stream else None)

    def query(
        self,
        image: Any = None,
        question: str | None = None,
        reasoning: bool = False,
        spatial_refs: Sequence[Sequence[float]] | None = None,
        stream: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> Result:
        """Answers a question about an image, or without one.

        `spatial_refs` are points (x, y) and boxes (x_min, y_min, x_max, y_max), fractions of the picture, that
        the question is about. Returns {"answer": text or generator}; with reasoning also
        {"reasoning": {"text", "grounding": [{"start_idx", "end_idx", "points"}]}}.
        """
        if spatial_refs and image is None:
            raise ValueError("spatial_refs need an image")
        config, encode = self.config.tokenizer, self.tokenizer.encode
        prompt = templates.query_prompt(config, encode, question, reasoning, spatial_refs)
        return self._answer(Query(prompt, config, reasoning), image, settings, "answer" if stream else None)

    def detect(self, image: Any, object: str, settings: Mapping[str, Any] | None = None) -> Result:  # noqa: A002
        """Boxes: {"objects": [{"x_min", "y_min", "x_max", "y_max"}]}, fractions of the picture."""
        prompt = templates.detect_prompt(self.config.tokenizer, self.tokenizer.encode, object)
        return self._answer(Detect(prompt, self._clamp_boxes), image, settings)

    def point(
        self,
        image: Any,
        object: str,  # noqa: A002
        spatial_refs: Sequence[Sequence[float]] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Result:
        """Points: {"points": [{"x", "y"}]}, fractions of the picture."""
        prompt = templates.point_prompt(self.config.tokenizer, self.tokenizer.encode, object, spatial_refs)
        return self._answer(Point(prompt), image, settings)

    def chat(self, *args: Any, **kwargs: Any) -> Result:
        """Not supported yet.

        Raises:
          NotImplementedError: always.
        """
        raise NotImplementedError("chat is not supported yet; use query for single questions")

    def _answer(
        self, skill: Skill, image: Any, given: Mapping[str, Any] | None, stream_key: str | None = None
    ) -> Result:
        settings = _settings(skill, given)
        if image is None and skill.needs_image:
            raise ValueError(f"{skill.name} needs an image")
        embeddings = None if image is None else self.encode_image(image).embeddings
        request = OracleRequest(skill.prompt, self._grammars[skill.grammar], settings, embeddings)
        result = Result()
        assert settings.seed is not None
        result.seed = settings.seed
        if stream_key is None:
            generation = self._oracle.run(request)
            result.update(skill.parse(generation, self.tokenizer.decode))
            result.finish_reason = generation.finish_reason
            return result
        steps = self._oracle.generate(request)
        if isinstance(skill, Query) and skill.reasoning:
            _reason(skill, steps, self.tokenizer.decode, result)
        result[stream_key] = _pieces(steps, Detokenizer(self.tokenizer), result)
        return result


def _dtype(dtype: str | DTypeLike) -> DTypeLike:
    if isinstance(dtype, str):
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        return DTYPES[dtype]
    return dtype


def _settings(skill: Skill, given: Mapping[str, Any] | None) -> Settings:
    """The request's settings: a seed is drawn where none is given, and objects set the budget of ids."""
    settings = Settings.parse(given, skill.defaults)
    seed = secrets.randbelow(MAX_SEED + 1) if settings.seed is None else settings.seed
    budget = settings.max_tokens
    if skill.tokens_per_object and (given or {}).get("max_tokens") is None:
        budget = skill.tokens_per_object * settings.max_objects + 1
    return dataclasses.replace(settings, seed=seed, max_tokens=budget)


def _reason(skill: Query, steps: Iterator[tuple[Token, Walk]], decode: Decode, result: Result) -> None:
    """Takes the steps of the reasoning, up to the id that opens the answer."""
    thought: list[Token] = []
    for token, walk in steps:
        thought.append(token)
        result.finish_reason = walk.finish
        if walk.finish is not None or skill.answer_start(thought) <= len(thought):
            break
    result.update(skill.parse(Generation(tuple(thought), result.finish_reason or "length"), decode))


def _pieces(steps: Iterator[tuple[Token, Walk]], detokenizer: Detokenizer, result: Result) -> Iterator[str]:
    for token, walk in steps:
        result.finish_reason = walk.finish
        if walk.finish != "stop":
            piece = detokenizer.push(token.id)
            if piece:
                yield piece
    rest = detokenizer.finish()
    if rest:
        yield rest
