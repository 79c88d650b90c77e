"""Requests, and a stand-in for the model that answers them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxphoton.requests.answer import Answer, Result

PICTURE = "data:image/png;base64,AAAA"


def request(custom_id: Any, url: str = "/v1/caption", method: str = "POST", **body: Any) -> dict[str, Any]:
    """A line of a file of requests; a caption without `body`."""
    body = body or {"image_url": PICTURE}
    return {"custom_id": custom_id, "method": method, "url": url, "body": body}


def write(path: Path, lines: list[Any]) -> Path:
    """A file of requests; texts as they are."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


class FakeRunModel:
    """Answers in reverse order within each four.

    Args:
      answer: from a job to the error that it ends with, or None.

    Attributes:
      jobs: all that were asked.
      opened: how often it was.
    """

    name, settings = "fake", {"dtype": "none"}  # noqa: RUF012 (nobody writes to it)
    adapters: tuple[str, ...] = ()

    def __init__(self, answer: Callable[[Any], Exception | None] = lambda job: None):
        self._answer = answer
        self.jobs: list[Any] = []
        self.opened = 0
        self.stages: dict[str, float] = {}
        self.compiling = 0.0

    def find(self) -> Any:
        return None

    def digest(self) -> str:
        return "digest"

    def adapter_digests(self, names) -> dict[str, str]:
        return {name: f"digest of {name}" for name in names}

    @contextmanager
    def answering(self, log) -> Any:
        self.opened += 1
        yield self, 1

    def answer(self, jobs) -> Iterator[Answer]:
        waiting = []
        for job in jobs:
            self.jobs.append(job)
            waiting.insert(0, self._one(job))
            if len(waiting) == 4:
                yield from waiting
                waiting = []
        yield from waiting

    def _one(self, job) -> Answer:
        if (error := self._answer(job)) is not None:
            return Answer(job.key, error=error)
        (ask,) = job.asks
        if ask.skill == "caption":
            result = Result(caption=f"{job.name}")
        elif ask.skill == "chat":
            result = Result(message={"role": "assistant", "content": ask.arguments["messages"][-1]["content"]})
        else:
            result = Result(answer=ask.arguments["question"])
        result.tokens, result.finish_reason = (1, 2, 3), "stop"
        return Answer(job.key, (result,))
