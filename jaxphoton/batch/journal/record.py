"""The lines of a journal: its header, and one record for each finished image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Literal

import jaxphoton
from jaxphoton.messages import quoted
from jaxphoton.requests.skill import fits
from jaxphoton.requests.skills import SKILLS, kinds

Status = Literal["ok", "failed"]
FORMAT = 1
# What settings were before journals had them.
_BEFORE = {"pictures.resize": "exact", "quantize": None}


@dataclass(frozen=True, slots=True)
class Header:
    """What a run was made with.

    Attributes:
      settings: all that changes the results, the input included; JSON values.
      model: digest of the model.
      version: of jaxphoton.
      created: when, ISO 8601 in UTC.
    """

    settings: Mapping[str, Any]
    model: str
    version: str = jaxphoton.__version__
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def differences(self, now: Header) -> list[str]:
        """What differs in settings and model from those of a run that would go on; the version may."""
        there = {"model": self.model} | _BEFORE | _flat(self.settings)
        here = {"model": now.model} | _BEFORE | _flat(now.settings)
        return [
            f"{name} was {_shown(there, name)} and is now {_shown(here, name)}"
            for name in sorted(there | here)
            if _shown(there, name) != _shown(here, name)
        ]

    @property
    def resize(self) -> Any:
        """How pictures were resized."""
        return (_BEFORE | _flat(self.settings))["pictures.resize"]


@dataclass(frozen=True, slots=True)
class Record:
    """One finished image.

    Attributes:
      key: of the item.
      status: "ok" or "failed".
      path: where the image is: `Item.path`.
      width, height: of the upright picture in pixels; 0 where unknown.
      results: one mapping for each answer, in the order asked: "task" ("caption", "query", "detect", "point",
        "segment"), what was asked ("question", "object", "length", "type") and the fields of the skill's result
        ("caption", "answer", "objects", ...), "tokens" and "finish_reason", "retries" if it was asked again so often.
        Several captions are several results.
      ms: milliseconds by stage.
      warnings: what was done to the picture, and what is odd about the text.
      reason, fault: of a failure: a word from a fixed list, and a sentence.
      org_caption: the text that came with the image.
      sha256: of the file, where it was computed.
    """

    key: str
    status: Status
    path: str = ""
    width: int = 0
    height: int = 0
    results: tuple[Mapping[str, Any], ...] = ()
    ms: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    reason: str = ""
    fault: str = ""
    org_caption: str = ""
    sha256: str = ""

    @property
    def tokens(self) -> int:
        """Generated tokens of all results together."""
        return sum(result.get("tokens", 0) for result in self.results)

    @property
    def finish_reason(self) -> str:
        """ "length" if any result was cut off, else "stop"; "error" for a failure."""
        if self.status == "failed":
            return "error"
        return "length" if any(result.get("finish_reason") == "length" for result in self.results) else "stop"


def to_line(entry: Header | Record) -> bytes:
    """One line of JSON; fields that are empty are left out, an undecodable file name becomes escapes that read back."""
    values = {name.name: getattr(entry, name.name) for name in fields(entry)}
    if isinstance(entry, Header):
        values = {"jaxphoton_journal": FORMAT} | values
    else:
        values = {name: value for name, value in values.items() if value or name in ("key", "status")}
    return json.dumps(values, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def from_line(line: bytes) -> Header | Record:
    """The reverse of `to_line`; fields of later versions are passed over.

    Raises:
      ValueError: not such a line, with the fault.
    """
    try:
        values = json.loads(line)
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")
    if "jaxphoton_journal" in values:
        if values["jaxphoton_journal"] != FORMAT:
            raise ValueError(f"journal format {values['jaxphoton_journal']!r}, this version reads {FORMAT}")
        if not isinstance(values.get("settings"), dict) or not isinstance(values.get("model"), str):
            raise ValueError("a header without settings or model")
        return Header(**{name: value for name, value in values.items() if name in _HEADER})
    fault = _fault(values)
    if fault:
        raise ValueError(fault)
    values["results"] = tuple(values.get("results", ()))
    values["warnings"] = tuple(values.get("warnings", ()))
    return Record(**{name: value for name, value in values.items() if name in _RECORD})


_HEADER = {name.name for name in fields(Header)}
_RECORD = {name.name for name in fields(Record)}
# What the exports rely on, of a record and of each of its results: a disk that flips a bit leaves JSON behind, too.
_TEXTS = ("path", "reason", "fault", "org_caption", "sha256")
_TEXTS_OF_RESULT = ("task", "length", "type", "finish_reason")
_MOST = 1 << 31


def _fault(values: dict[str, Any]) -> str | None:
    if not isinstance(values.get("key"), str):
        return "no key"
    if values.get("status") not in ("ok", "failed"):
        return f"status {values.get('status')!r} is neither ok nor failed"
    results = values.get("results", [])
    if not isinstance(results, list) or not all(isinstance(r, dict) and "task" in r for r in results):
        return "results are not a list of objects with a task"
    if not all(isinstance(values.get(name, ""), str) for name in _TEXTS):
        return f"one of {', '.join(_TEXTS)} is no text"
    if not all(_whole(values.get(name, 0)) for name in ("width", "height")):
        return "width and height are not whole numbers"
    warnings = values.get("warnings", [])
    if not isinstance(warnings, list) or not all(isinstance(warning, str) for warning in warnings):
        return "warnings are not a list of texts"
    if not isinstance(values.get("ms", {}), dict):
        return "ms is not an object"
    return next((fault for result in results if (fault := _fault_of_result(result))), None)


def _fault_of_result(result: dict[str, Any]) -> str | None:
    asked = (skill.asked for skill in SKILLS.values())
    for name in (*_TEXTS_OF_RESULT, *asked):
        if not isinstance(result.get(name, ""), str):
            return f"a result whose {name} is no text"
    for name in ("tokens", "retries"):
        if not _whole(result.get(name, 0)):
            return f"a result whose {name} are not a whole number"
    for name, value in result.items():
        # What a model has not written is None in some skills.
        if (kind := kinds().get(name)) is not None and not (
            fits(value, kind.shape) or (value is None and kind.optional)
        ):
            return f"a result whose {name} cannot be {quoted(value)}"
    return None


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MOST  # True is an int too


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return json.dumps(settings[name], sort_keys=True) if name in settings else "not set"
