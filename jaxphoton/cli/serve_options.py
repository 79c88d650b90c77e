"""The options of `jaxphoton serve`."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from jaxphoton.cli.base import CommandError, add_adapter_option, add_model_options, number, plain
from jaxphoton.cli.batch_options import replicas
from jaxphoton.image.ways import RESIZES
from jaxphoton.messages import quoted

if TYPE_CHECKING:
    from jaxphoton.server.options import ServerOptions

PORT = 2020  # that of Moondream's own server
KEY_VARIABLE = "JAXPHOTON_API_KEY"


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """All of them."""
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="where uploaded files and batches are kept (default: jaxphoton/serve-PORT in ~/.local/state)",
    )
    _add_access(parser)
    _add_limits(parser)
    group = add_model_options(parser)
    add_adapter_option(group, "for requests whose model is MODEL/NAME, or whose settings name it; may be repeated")
    group.add_argument(
        "--adapter-folder",
        type=_folder,
        metavar="DIR",
        help="adapters that are read when they are first asked for: MODEL/NAME is DIR/NAME, MODEL/FT_ID@STEP also "
        "DIR/FT_ID/STEP",
    )
    group.add_argument(
        "--adapter-slots",
        type=number(int, 1),
        metavar="N",
        help="adapters that requests decoded at once may have; more take turns (default: as many as --adapter, at most "
        "4)",
    )
    group.add_argument(
        "--adapter-rank",
        type=number(int, 1),
        metavar="R",
        help="the largest rank of an adapter (default: that of --adapter, with a folder at least 32)",
    )
    group = parser.add_argument_group("the engine")
    group.add_argument("--name", action="append", default=[], type=plain, help="another name of the model, for clients")
    group.add_argument("--rows", type=number(int, 1), metavar="N", help="requests decoded at once (default: what fits)")
    group.add_argument(
        "--max-waiting", type=number(int, 0), metavar="N", help="requests that may wait; more get 429 (default: 1024)"
    )
    group.add_argument(
        "--replicas",
        type=replicas,
        default=0,
        metavar="N",
        help="engine processes, each with a GPU of its own, or those of --mesh, which are started again when they "
        "fail; auto for as many as visible GPUs are enough for (default: the engine is in this process)",
    )
    group.add_argument(
        "--executables", metavar="DIR", help="programs that `jaxphoton compile` has stored, instead of compiling"
    )
    group.add_argument(
        "--resize", choices=RESIZES, help="exact: by Pillow; fast: at most 2 levels away (default: fast)"
    )
    group.add_argument("--workers", type=number(int, 0), metavar="N", help="processes that decode pictures")


def _folder(text: str) -> str:
    path = os.path.expanduser(text)
    if not os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"{quoted(text)} is no folder")
    return path


def _add_access(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("who may ask")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    group.add_argument("--port", type=number(int, 0, 65535), default=PORT, help=f"0 for any (default: {PORT})")
    group.add_argument(
        "--api-key",
        action="append",
        default=[],
        metavar="KEY",
        help="ask for this key; may be repeated. Others see a command line: better put it into "
        f"{KEY_VARIABLE}, several with commas",
    )
    group.add_argument(
        "--cors",
        action="append",
        default=[],
        type=_origin,
        metavar="ORIGIN",
        help="let pages of this site ask, such as https://example.org; or * for all",
    )
    group.add_argument(
        "--allow-remote-images",
        action="store_true",
        help="fetch pictures from http addresses in requests; never from inside the network (default: refused)",
    )
    group.add_argument("--access-log", action="store_true", help="a line for each request: no bodies, no keys")


def _origin(text: str) -> str:
    """As browsers write it; another form would fit none."""
    if text == "*" or re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#@\sA-Z]+", text):
        return text
    raise argparse.ArgumentTypeError(f"{quoted(text)} is no origin such as https://example.org, and not *")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits")
    group.add_argument(
        "--max-body", type=number(int, 1), default=64, metavar="MIB", help="largest body, in MiB (default: 64)"
    )
    group.add_argument(
        "--body-timeout",
        type=number(float, 0, above=True),
        default=60.0,
        metavar="S",
        help="seconds that a body may take to come (default: 60)",
    )
    group.add_argument(
        "--max-file",
        type=number(int, 1),
        default=512,
        metavar="MIB",
        help="largest file that is uploaded, in MiB (default: 512)",
    )
    group.add_argument(
        "--grace",
        type=number(float, 0),
        default=30.0,
        metavar="S",
        help="seconds in which requests may end when it is told to stop (default: 30)",
    )


def server_options(args: argparse.Namespace) -> ServerOptions:
    """What the options say about access and limits.

    Raises:
      CommandError: a key that no header can hold.
    """
    from jaxphoton.server.access import LOOPBACK
    from jaxphoton.server.options import MIB, ServerOptions

    keys = [*args.api_key, *os.environ.get(KEY_VARIABLE, "").split(",")]
    keys = tuple(key for each in keys if (key := each.strip()))
    if any(not key.isascii() for key in keys):
        raise CommandError("a key must be ASCII: headers hold nothing else")
    local = is_loopback(args.host)
    return ServerOptions(
        keys=keys,
        hosts=LOOPBACK | {in_header(args.host)} if local else None,
        origins=tuple(args.cors),
        max_body=args.max_body * MIB,
        max_bodies=max(1024, args.max_body) * MIB,
        max_file=args.max_file * MIB,
        body_timeout=args.body_timeout,
        grace=args.grace,
        access_log=args.access_log,
    )


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is that of this machine alone."""
    return host in ("localhost", "::1") or host.startswith("127.")


def in_header(host: str) -> str:
    """As it stands in an address and in a Host header."""
    return f"[{host}]" if ":" in host else host.lower()
