"""Pictures on their way to the engine: here and now, beside others in worker processes, or once for many asks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from jaxphoton.config import EngineConfig
from jaxphoton.engine.metrics import Observers
from jaxphoton.image.crops import Pictures
from jaxphoton.image.decode import check_rules
from jaxphoton.image.pool import ImagePool
from jaxphoton.image.prepare import Prepared, prepare
from jaxphoton.image.several import SeveralImages, gathered
from jaxphoton.image.ways import Resize, check_resize, default_resize
from jaxphoton.requests.bounds import image_workers
from jaxphoton.requests.errors import ModelClosed


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """A decoded and cropped image; asking about it again finds its encoding in the engine's prefix cache.

    Attributes:
      image: crops and digest.
      pictures: how it was prepared.
    """

    image: Prepared = field(repr=False)  # a page of pixels
    pictures: Pictures

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the picture in pixels."""
        return self.image.size

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to it on the way (rotated, blended, ...)."""
        return self.image.notes


def image_rules(
    max_pixels: int, background: tuple[int, int, int], allow_truncated: bool, fast: bool, resize: Resize | None
) -> dict[str, Any]:
    """Arguments of `prepare` for every image of a model; of `resize` None is the fast way, where that can be had.

    Raises:
      ValueError, TypeError: one is wrong.
    """
    check_rules(max_pixels, background)
    return {
        "max_pixels": max_pixels,
        "background": background,
        "allow_truncated": allow_truncated,
        "fast": fast,
        "resize": default_resize() if resize is None else check_resize(resize),
    }


class Images:
    """Prepares the pictures of one model; its workers are started when a batch, or many images at once, need them.

    Args:
      pictures: how the model has them prepared.
      rules: arguments of `prepare` for every image.
      engine: how many workers, and how long one may be at an image.
    """

    def __init__(self, pictures: Pictures, rules: Mapping[str, Any], engine: EngineConfig):
        self._pictures, self._rules, self._engine = pictures, rules, engine
        self._lock = threading.Lock()
        self._pool: ImagePool | None = None
        self._closed = False
        self._observers = Observers("images")

    def observe(self, images: Callable[[Prepared], None] | None) -> ExitStack:
        """Has a function called with each picture that was prepared, on the thread that asked for it."""
        return self._observers.add(images=images)

    def encode(self, image: Any) -> EncodedImage:
        """Prepares here and now what can be asked about many times; an EncodedImage passes through.

        Raises:
          ImageError, TypeError, ValueError: as `prepare`, or crops of another model.
        """
        return image if isinstance(image, EncodedImage) else EncodedImage(self._prepared(image), self._pictures)

    def prepared(self, image: Any) -> Prepared | list[Prepared]:
        """The same for one use; of SeveralImages a list."""
        if isinstance(image, SeveralImages):
            return image.each(self._prepared)
        return self._prepared(image)

    def _prepared(self, image: Any) -> Prepared:
        if isinstance(image, EncodedImage):
            return self._taken(image)
        return self._taken(prepare(image, self._pictures, **self._rules))

    def prepared_beside(self, image: Any, many: bool) -> Prepared | list[Prepared]:
        """`prepared` for a thread beside others: in the image workers where they run, and where there are many images,
        for which they are started."""
        if isinstance(image, SeveralImages):
            return image.each(lambda each: self._beside(each, many))
        return self._beside(image, many)

    def _beside(self, image: Any, many: bool) -> Prepared:
        with self._lock:
            running = self._pool is not None
        pool = self.pool() if (running or many) and not isinstance(image, EncodedImage) else None
        if pool is None:
            return self._prepared(image)
        try:
            return self._taken(pool.submit(image).result())
        except RuntimeError as error:
            if self._closed:
                raise ModelClosed from error
            raise

    def later(self, image: Any, name: str | None) -> Future[Any]:
        """Has the workers prepare an image, if there are any; `taken` what the future brings, of SeveralImages a
        list."""
        if isinstance(image, SeveralImages):
            return gathered([self.later(each, name) for each in image.images])
        pool = None if isinstance(image, EncodedImage) else self.pool()
        if pool is not None:
            return pool.submit(image, name=name)
        future: Future[Any] = Future()
        try:
            future.set_result(self.encode(image))
        except Exception as error:
            future.set_exception(error)
        return future

    def taken(self, picture: Any) -> Prepared | list[Prepared]:
        """A picture for the engine, Prepared or an EncodedImage, or a list of such; observers are told of one that was
        prepared for it.

        Raises:
          ValueError: an EncodedImage with the crops of another model.
        """
        return [self._taken(each) for each in picture] if isinstance(picture, list) else self._taken(picture)

    def _taken(self, picture: Prepared | EncodedImage) -> Prepared:
        if isinstance(picture, EncodedImage):
            if picture.pictures != self._pictures:
                raise ValueError("this EncodedImage was made for a model with other crops")
            return picture.image
        self._observers.tell("images", picture)
        return picture

    def pool(self) -> ImagePool | None:
        """The workers; None where the settings of the engine want none.

        Raises:
          ModelClosed: they were closed.
        """
        with self._lock:
            if self._closed:  # a pool opened now would never be closed
                raise ModelClosed
            if self._pool is None and (workers := image_workers(self._engine)):
                self._pool = ImagePool(self._pictures, workers, timeout=self._engine.image_timeout, **self._rules)
            return self._pool

    def close(self) -> None:
        """Ends the workers; what they had fails."""
        with self._lock:
            self._closed, pool = True, self._pool
        if pool is not None:
            pool.close()
