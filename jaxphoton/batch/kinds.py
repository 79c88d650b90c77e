"""The kinds of tasks, and what the result of each is called."""

from __future__ import annotations

from typing import Literal, get_args

Kind = Literal["caption", "query", "detect", "point", "segment"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LENGTHS = ("short", "normal", "long")  # of a caption in the model's own words

# What the text of a task is called in the journal, and which fields of a result are taken.
ASKED = {"caption": "prompt", "query": "question", "detect": "object", "point": "object", "segment": "object"}
FIELDS = {
    "caption": ("caption",),
    "query": ("answer", "reasoning"),
    "detect": ("objects",),
    "point": ("points",),
    "segment": ("path", "bbox", "parse_error"),
}


def description(kind: Kind, text: str, length: str, reasoning: bool | None) -> str:
    """A task in the header of a journal: `caption:normal`, `caption:Say it in rhyme.`, `query:Is it day? (reasoning)`.

    A prompt that is the name of a length stands in quotation marks."""
    if kind == "caption":
        return f"caption:{text and (repr(text) if text in LENGTHS else text) or length}"
    how = {None: "", True: " (reasoning)", False: " (no reasoning)"}[reasoning]
    return f"{kind}:{text}{how}"


def names_of(described: str) -> tuple[str, ...]:
    """The fields that results of a task have in the journal: what was asked, then what was found; () for no task."""
    kind, _, about = described.partition(":")
    if kind not in KINDS:
        return ()
    asked = "length" if kind == "caption" and about in LENGTHS else ASKED[kind]
    # Whether a model reasons unasked, only the model knows.
    left_out = {"reasoning"} if about.endswith(" (no reasoning)") else set()
    return (asked, *(name for name in FIELDS[kind] if name not in left_out))
