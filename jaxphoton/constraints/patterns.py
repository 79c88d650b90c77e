"""Regular expressions of JSON schemas, narrowed to what every dialect means alike.

ECMA 262 (the standard's), Python's (jsonschema) and Rust's (llguidance) differ in what a class such as `\\d` holds and
in much of the rare syntax. What is left here matches a part of what each of them matches.
"""

from __future__ import annotations

import re

# Outside of a class and in it; in a negated class and as \D, \W, \S what no dialect counts in.
_NARROW = {"d": "0-9", "w": "0-9A-Za-z_", "s": r" \t\n\r\f"}
_WIDE = {"d": r"\p{Nd}", "w": r"\p{L}\p{N}\p{M}_", "s": r"\s\x1c-\x1f\x{feff}"}
_ANY = r"[^\n\r\x{2028}\x{2029}]"
_ESCAPE = re.compile(r"\\(?:([dwsDWS])|[nrtf]|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|[!-/:;=?@\[-`{-~])", re.ASCII)
_REPEAT = re.compile(r"(?:[*+?]|\{[0-9]{1,4}(?:,[0-9]{0,4})?\})\??", re.ASCII)
_SET_OPERATORS = ("&&", "--", "~~", "||")


class PatternError(ValueError):
    """A pattern that dialects read differently, or that is none."""


def narrowed(pattern: str) -> str:
    """The pattern for llguidance.

    Raises:
      PatternError: with what is not supported.
    """
    out, at, repeatable = [], 0, False
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            piece, at = _escape(pattern, at, "")
        elif char == "[":
            piece, at = _class(pattern, at)
        elif repeat := _REPEAT.match(pattern, at):
            if not repeatable:
                raise PatternError(f"the repetition {repeat[0]} has nothing to repeat")
            piece, at = repeat[0], repeat.end()
        elif char in "{}]":
            raise PatternError(f"{char} without a backslash")
        elif pattern.startswith("(?", at) and not pattern.startswith("(?:", at):
            raise PatternError(f"{pattern[at : at + 3]}: groups other than (...) and (?:...)")
        else:
            piece = "(?:" if pattern.startswith("(?:", at) else _ANY if char == "." else char
            at += len(piece) if char == "(" else 1
        out.append(piece)
        # Python's possessive a*+ is a repeated repetition to others.
        repeatable = char not in "(|^$*+?{"
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternError(str(error)) from None
    return "".join(out)


def _escape(pattern: str, at: int, inside: str) -> tuple[str, int]:
    """The escape at an index, and the index behind it; `inside` is "[", "[^" or nothing."""
    found = _ESCAPE.match(pattern, at)
    if found is None:
        raise PatternError(f"the escape {pattern[at : at + 2]}")
    kind, *code = found.groups()
    if kind in _NARROW:
        held = _WIDE[kind] if inside == "[^" else _NARROW[kind]
        return held if inside else f"[{held}]", found.end()
    if kind:
        if inside:
            raise PatternError(f"the escape {found[0]} in a class")
        return f"[^{_WIDE[kind.lower()]}]", found.end()
    number = next((int(digits, 16) for digits in code if digits), None)
    if number is None:
        return found[0], found.end()
    if 0xD800 <= number < 0xE000:
        raise PatternError(f"half a surrogate pair, {found[0]}")
    return f"\\x{{{number:x}}}", found.end()


def _class(pattern: str, at: int) -> tuple[str, int]:
    """The class that opens at an index, and the index behind it."""
    inside = "[^" if pattern.startswith("[^", at) else "["
    out, at = [inside], at + len(inside)
    if pattern.startswith("]", at):
        raise PatternError(f"the class {inside}]")
    named = False
    while at < len(pattern) and pattern[at] != "]":
        if pattern[at] == "[":
            raise PatternError("[ in a class without a backslash")
        if pattern[at : at + 2] in _SET_OPERATORS:
            raise PatternError(f"{pattern[at : at + 2]} in a class")
        if named and pattern[at] == "-" and not pattern.startswith("-]", at):
            raise PatternError("a range from a class of characters")
        named = re.match(r"\\[dws]", pattern[at:]) is not None
        if pattern[at] == "\\":
            piece, at = _escape(pattern, at, inside)
        else:
            # A caret inside would be harmless, but may meet a bracket of what stands before it.
            piece, at = ("\\^" if pattern[at] == "^" else pattern[at]), at + 1
        if named and out[-1] == "-" and len(out) > 2:
            raise PatternError("a range to a class of characters")
        out.append(piece)
    if at >= len(pattern):
        raise PatternError("a class that is not closed")
    return "".join(out) + "]", at + 1
