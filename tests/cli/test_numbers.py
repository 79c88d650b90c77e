"""Options that are numbers: what is wrong is one short line with the option, the value and the range."""

from __future__ import annotations

import argparse

import pytest

from jaxphoton.cli.base import CommandParser, add_sampling_options


def options(*arguments: str) -> argparse.Namespace:
    parser = CommandParser(prog="x", flagfile=False)
    add_sampling_options(parser, objects=True)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("option", "limits"),
    [
        ("--temperature", "at least 0, at most 1000"),
        ("--top-p", "above 0, at most 1"),
        ("--max-tokens", "at least 1"),
        ("--max-objects", "at least 1"),
        ("--seed", "at least 0, at most 4294967295"),
    ],
)
@pytest.mark.parametrize(
    "value",
    ["", " ", "abc", "None", "True", "nan", "inf", "-inf", "1e400", "-1", "-1e400", "1,5", "0x10", "[1]"]
    + ["9" * 5000, "-" + "9" * 400, "x" * 10**5],
    ids=lambda value: value[:10],
)
def test_what_is_no_number_in_range_is_one_short_line(capsys, option, limits, value):
    with pytest.raises(SystemExit) as exit:
        options(f"{option}={value}")
    assert exit.value.code == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"x: argument {option}: ") and line.endswith(limits) and len(line) < 200
    assert value[:40] in line


def test_large_numbers_are_numbers():
    given = options("--max-tokens", "1" * 400, "--seed", "4294967295", "--temperature", "1000", "--top-p", "1e-300")
    assert given.max_tokens == int("1" * 400) and given.seed == 2**32 - 1 and given.temperature == 1000
