"""`jaxphoton bench`: measures the engine on this machine."""

from __future__ import annotations

from importlib import import_module

from jaxphoton.cli.base import CommandParser

KINDS = ("host", "pipeline", "throughput")


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("bench", help="measure the engine on this machine")
    kinds = parser.add_subparsers(dest="bench", metavar="WHAT", required=True, parser_class=CommandParser)
    for kind in KINDS:
        _module(kind).add_parser(kinds)


def run(args) -> int:
    return _module(args.bench).run(args)


def _module(kind: str):
    return import_module(f"jaxphoton.cli.bench_{kind}")
