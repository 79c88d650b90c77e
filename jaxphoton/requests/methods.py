"""One method a skill, for whoever waits: the synchronous face of a session."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from inspect import isfunction
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxphoton.requests import calls
from jaxphoton.requests.answer import Answer, BatchItem
from jaxphoton.requests.ask import Ask, Job
from jaxphoton.requests.chatting import conversation
from jaxphoton.requests.conversation import Messages
from jaxphoton.requests.skills import caption_arguments, skill_of
from jaxphoton.requests.submitting import OnEvent, Pending

if TYPE_CHECKING:
    from jaxphoton.requests.session import Session

SpatialRefs = Sequence[Sequence[float]] | np.ndarray


class SkillMethods:
    """Of something that has a session. `adapter` is the name of weights to answer with beside the model's own."""

    def __init_subclass__(cls, **more: Any):
        super().__init_subclass__(**more)
        if SkillMethods in cls.__bases__:
            for name, method in vars(SkillMethods).items():
                if isfunction(method) and not name.startswith("_"):
                    # What Python says of a wrong argument names the class that people know.
                    method.__qualname__ = f"{cls.__qualname__}.{name}"

    @property
    def session(self) -> Session:
        """What prepares and submits requests."""
        raise NotImplementedError

    def caption(
        self,
        image: Any,
        length: str | int = "normal",
        stream: bool = False,
        settings: Mapping[str, Any] | None = None,
        adapter: str | None = None,
        *,
        type: str | None = None,
        extra: Sequence[str] = (),
        name: str | None = None,
    ) -> Any:
        """Describes an image: {"caption": text, or with stream=True a generator of pieces}.

        `length` is "short", "normal" or "long", as far as the model knows it. JoyCaption (docs/joycaption.md) also
        takes more lengths, a number of words, a `type` of caption, `extra` options and the `name` of a person in the
        image; other models refuse these.
        """
        arguments = caption_arguments(length, type, extra, name)
        return self._asked(Ask("caption", arguments, settings, adapter=adapter), image, stream)

    def query(
        self,
        image: Any = None,
        question: str | None = None,
        reasoning: bool | None = None,
        spatial_refs: SpatialRefs | None = None,
        stream: bool = False,
        settings: Mapping[str, Any] | None = None,
        adapter: str | None = None,
    ) -> Any:
        """Answers a question about an image, or without one.

        `reasoning` lets the model think first; by default Moondream 3 does and Moondream 2 does not. `spatial_refs`
        are points (x, y) and boxes (x_min, y_min, x_max, y_max), fractions of the picture, that the question is
        about. Returns {"answer": text or generator}; with reasoning also
        {"reasoning": {"text", "grounding": [{"start_idx", "end_idx", "points"}]}}.

        Two more settings restrict the answer (extra `grammar`): "schema", a JSON schema as a mapping, or "choices", a
        list of texts. An answer whose finish_reason is "stop" is then valid against the schema, or one of the choices.
        """
        arguments = {"question": question, "reasoning": reasoning, "spatial_refs": spatial_refs}
        return self._asked(Ask("query", arguments, settings, adapter=adapter), image, stream)

    def detect(
        self, image: Any, object: str, settings: Mapping[str, Any] | None = None, adapter: str | None = None
    ) -> Any:
        """Boxes: {"objects": [{"x_min", "y_min", "x_max", "y_max"}]}, fractions of the picture."""
        return self._asked(Ask("detect", {"object": object}, settings, adapter=adapter), image)

    def point(
        self,
        image: Any,
        object: str,
        spatial_refs: SpatialRefs | None = None,
        settings: Mapping[str, Any] | None = None,
        adapter: str | None = None,
    ) -> Any:
        """Points: {"points": [{"x", "y"}]}, fractions of the picture."""
        arguments = {"object": object, "spatial_refs": spatial_refs}
        return self._asked(Ask("point", arguments, settings, adapter=adapter), image)

    def segment(
        self,
        image: Any,
        object: str,
        spatial_refs: SpatialRefs | None = None,
        stream: bool = False,
        settings: Mapping[str, Any] | None = None,
        adapter: str | None = None,
    ) -> Any:
        """The outline of an object: {"path": SVG path, "bbox": {"x_min", "y_min", "x_max", "y_max"}}.

        The box is in fractions of the picture, the path in fractions of the box. Where the model did not write a box
        and a path, "parse_error" says so. With stream=True a generator of events: {"bbox"}, {"chunk": a piece of the
        path} and so on, at last the result with "completed": True.

        Raises:
          ValueError: the model cannot segment (Moondream 2).
        """
        ask = Ask("segment", {"object": object, "spatial_refs": spatial_refs}, settings, adapter=adapter)
        return calls.stream_events(self.session, image, ask) if stream else calls.call(self.session, image, ask)

    def chat(
        self,
        messages: Messages,
        stream: bool = False,
        settings: Mapping[str, Any] | None = None,
        reasoning: bool | None = None,
        adapter: str | None = None,
    ) -> Any:
        """Answers the last message of a conversation in the form of OpenAI's clients (`requests.conversation`).

        Pictures may stand in all messages of the user, as many as the context holds, as {"type": "image_url",
        "image_url": {"url": ...}} or {"type": "image", "image": ...}: a data address, or any image but a path that is a
        text (so that no message names a file of this machine; give a pathlib.Path). Settings and `reasoning` are those
        of `query`; a setting "reasoning" goes before the argument.

        Returns {"message": {"role": "assistant", "content": text}, "finish_reason"}, after reasoning with its text as
        "reasoning" of the message, and its places as "reasoning_details": {"grounding"}. With stream=True "message" is
        a generator of pieces, and "reasoning" that of a query.
        """
        image, arguments, settings = conversation(messages, settings, reasoning)
        return self._asked(Ask("chat", arguments, settings, adapter=adapter), image, stream)

    def caption_batch(
        self,
        images: Iterable[Any],
        length: str | int = "normal",
        settings: Mapping[str, Any] | None = None,
        adapter: str | None = None,
        *,
        type: str | None = None,
        extra: Sequence[str] = (),
        name: str | None = None,
    ) -> Generator[BatchItem, None, None]:
        """Captions any number of images: `batch("caption", ...)`."""
        return self.batch("caption", images, settings, adapter, **caption_arguments(length, type, extra, name))

    def batch(
        self,
        task: str,
        images: Iterable[Any],
        settings: Mapping[str, Any] | None = None,
        adapter: str | None = None,
        **arguments: Any,
    ) -> Generator[BatchItem, None, None]:
        """Asks the same of any number of images, yielding each as it finishes.

        Args:
          task: "caption", "query", "detect", "point", "segment" or "chat".
          images: images, or (key, image) pairs; an image's key is its position where none is given. Read lazily, a
            bounded number ahead.
          arguments: of the task, such as `length`, `question`, `object` or `messages` (which have no pictures).

        Yields:
          (key, result, error); a broken image has an error, the rest goes on.
        """
        return calls.batch(self.session, images, Ask(task, arguments, settings, adapter=adapter))

    def answer(self, jobs: Iterable[Job]) -> Generator[Answer, None, None]:
        """Answers any number of jobs, each as it finishes: several asks about an image, different ones for each.

        Jobs are read lazily, a bounded number ahead, in a thread of their own. What is wrong with a job is the error
        of its answer; the others go on.
        """
        return self.session.answers(jobs)

    def submit(self, image: Any, ask: Ask, on_event: OnEvent | None = None, wait: bool = False) -> Pending:
        """Hands over one ask without waiting for it: see `Submitter`, which says how it is followed and given up."""
        return self.session.submit(image, ask, on_event, wait)

    def _asked(self, ask: Ask, image: Any, stream: bool = False) -> Any:
        field = skill_of(ask.skill).streamed
        if stream and field is not None:
            return calls.stream_text(self.session, image, ask, field)
        return calls.call(self.session, image, ask)
