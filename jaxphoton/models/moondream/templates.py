"""Prompt templates in the settings: token ids by skill and part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxphoton.config.fields import Fits, is_whole, require
from jaxphoton.messages import quoted

WHERE = "tokenizer.templates"
MAX_ID = 2**31 - 1
MAX_IDS = 4096  # of one part of a prompt
MAX_LENGTHS = 64  # of captions
MAX_TEXT = 100  # characters before an object

IDS = f"a list of token ids (integers from 0, at most {MAX_IDS} of them)"


def _are_ids(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) <= MAX_IDS and all(is_whole(i, 0, MAX_ID) for i in value)


_TOKENS = Fits(_are_ids, IDS)
_FLAG = Fits(lambda v: isinstance(v, bool), "true or false")
_TEXT = Fits(lambda v: isinstance(v, str) and len(v) <= MAX_TEXT, f"a text of at most {MAX_TEXT} characters")

# Skill -> the parts that are read. A caption has a prompt for each length instead.
_OBJECT = {"prefix": _TOKENS, "suffix": _TOKENS, "object_prefix": _TEXT}
KINDS: dict[str, dict[str, Fits]] = {
    "query": {
        "prefix": _TOKENS,
        "suffix": _TOKENS,
        "answer_prefix": _TOKENS,
        "reasoning_prefix": _TOKENS,
        "reasoning_default": _FLAG,
        "post_reasoning_prefix": _TOKENS,
        "reasoning_suppressed_token_ids": _TOKENS,
        "answer_suppressed_token_ids": _TOKENS,
    },
    "detect": _OBJECT,
    "point": _OBJECT,
    "segment": _OBJECT,
}
# Skill -> the parts of which one must be there.
NEEDED = {skill: (("prefix",), ("suffix",)) for skill in KINDS} | {"query": (("prefix",), ("suffix", "answer_prefix"))}


def checked(templates: Any) -> dict[str, dict[str, Any]]:
    """The templates of the known skills, without what is null and parts that nothing reads.

    Raises:
      ConfigError: a template or a part is of the wrong kind, or one that a skill cannot do without is missing.
    """
    require(isinstance(templates, Mapping), f"{WHERE} must be an object, not {quoted(templates)}")
    kept: dict[str, dict[str, Any]] = {}
    for skill in ("caption", *KINDS):
        template = templates.get(skill)
        if template is not None:
            require(isinstance(template, Mapping), f"{WHERE}.{skill} must be an object or null, not {quoted(template)}")
            kept[skill] = _captions(template) if skill == "caption" else _parts(skill, template)
    return kept


def id_lists(templates: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Sequence[int]]]:
    """(Name of the setting, token ids) of every part of checked templates."""
    for skill, template in templates.items():
        for name, ids in template.items():
            if skill == "caption" or KINDS[skill][name] is _TOKENS:
                yield f"{WHERE}.{skill}[{quoted(name)}]" if skill == "caption" else f"{WHERE}.{skill}.{name}", ids


def _captions(lengths: Mapping[str, Any]) -> dict[str, Any]:
    where = f"{WHERE}.caption"
    require(len(lengths) <= MAX_LENGTHS, f"{where} has {len(lengths)} lengths; at most {MAX_LENGTHS} are allowed")
    kept = {name: ids for name, ids in lengths.items() if ids is not None}
    require(len(kept) > 0, f"{where} must hold the token ids of at least one length")
    for name, ids in kept.items():
        fits = _are_ids(ids) and len(ids) > 0
        require(fits, f"{where}[{quoted(name)}] must be {IDS}, not {quoted(ids)}")
    return kept


def _parts(skill: str, template: Mapping[str, Any]) -> dict[str, Any]:
    where = f"{WHERE}.{skill}"
    kept = {name: part for name, part in template.items() if part is not None and name in KINDS[skill]}
    for name, value in kept.items():
        kind = KINDS[skill][name]
        require(kind.test(value), f"{where}.{name} must be {kind.allowed}, not {quoted(value)}")
    for names in NEEDED[skill]:
        require(any(name in kept for name in names), f"{where}.{' or '.join(names)} is missing; it must be {IDS}")
    return kept
