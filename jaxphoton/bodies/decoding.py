"""Bodies of JSON, decoded into their forms; errors name the part that is wrong, and what it may be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from jaxphoton.bodies.faults import BodyError
from jaxphoton.messages import short


def decoded(data: bytes, kind: Any) -> Any:
    """A body of JSON.

    Raises:
      BodyError: it is none, or of another form; it names the part.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise _fault(str(error), kind) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BodyError(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise BodyError("the body is nested too deeply") from None


def _fault(told: str, kind: Any) -> BodyError:
    """In words of ours where the decoder's do not say what may stand there."""
    what, _, where = told.partition(" - at `$.")
    where = where.rstrip("`")
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", what):
        where = f"{where}.{missing[1]}" if where else missing[1]
        return BodyError(f"{where} is missing", where)
    if what.startswith("Invalid enum value") and (choices := _choices(kind, where)):
        value = short(what.removeprefix("Invalid enum value "))
        return BodyError(f"{where} must be one of {', '.join(choices)}, not {value}", where)
    return BodyError(told, where or None)


def _choices(kind: Any, where: str) -> list[str]:
    """What may stand in a part of a form, such as `messages[0].role`."""
    found = list(_kinds(inspect.type_info(kind)))
    for step in re.findall(r"\[[^\]]*\]|\w+", where):
        found = [inner for each in found for inner in _inside(each, step)]
    choices = [str(value) for each in found if isinstance(each, inspect.LiteralType) for value in each.values]
    return choices + ["a whole number"] * any(isinstance(each, inspect.IntType) for each in found)


def _inside(kind: inspect.Type, step: str) -> Iterator[inspect.Type]:
    if isinstance(kind, inspect.StructType):
        for field in kind.fields:
            if field.encode_name == step:
                yield from _kinds(field.type)
    elif isinstance(kind, inspect.ListType):
        yield from _kinds(kind.item_type)


def _kinds(kind: inspect.Type) -> Iterator[inspect.Type]:
    yield from kind.types if isinstance(kind, inspect.UnionType) else (kind,)
