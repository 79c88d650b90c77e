"""`jaxphoton serve`: HTTP in front of a model."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from jaxphoton.cli.base import OK, CommandError, add_model_options, number, say

PORT = 2020  # that of Moondream's own server


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("serve", help="answer over HTTP", description="Answers over HTTP.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=number(int, 0, 65535), default=PORT, help=f"0 for any (default: {PORT})")
    parser.add_argument(
        "--allow-remote-images",
        action="store_true",
        help="fetch pictures from http addresses in requests; never from inside the network (default: refused)",
    )
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    if missing := [name for name in ("starlette", "uvicorn", "msgspec", "aiohttp") if find_spec(name) is None]:
        raise CommandError(f"serving needs {', '.join(missing)}: pip install 'jaxphoton[serve]'")
    import uvicorn

    from jaxphoton.batch.model import load_model
    from jaxphoton.bodies.fetching import Fetcher
    from jaxphoton.server.app import application
    from jaxphoton.server.backend import LocalBackend
    from jaxphoton.server.service import Service

    with load_model(args.model, revision=args.revision, dtype=args.dtype, max_pixels=args.max_pixels) as model:
        service = Service(LocalBackend(model), [args.model], Fetcher().fetch if args.allow_remote_images else None)
        service.start()
        say("serve", f"http://{args.host}:{args.port}/v1")
        uvicorn.run(application(service), host=args.host, port=args.port)
    return OK
