"""`jaxphoton serve`: HTTP in front of a model."""

from __future__ import annotations

import argparse
import logging
import os
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxphoton.cli.base import OK, CommandError, CommandParser, say
from jaxphoton.cli.serve_options import add_server_options, in_header, is_loopback, server_options
from jaxphoton.requests.errors import EngineError

if TYPE_CHECKING:
    from jaxphoton.server.backend import Backend
    from jaxphoton.server.batching import Batches
    from jaxphoton.server.listening import Listener
    from jaxphoton.server.options import ServerOptions
    from jaxphoton.server.service import Service

BACKLOG = 2048  # connections that wait to be accepted
FILES = 65_536  # that may be open at once
NEEDED = ("starlette", "uvicorn", "msgspec", "prometheus_client", "python_multipart", "aiohttp")

EPILOG = """\
The clients of Moondream (endpoint ADDRESS/v1) and of OpenAI (base_url ADDRESS/v1), and a page at / for people.
Ready once its programs are compiled: /health says so, and until then why not. Ctrl-C or SIGTERM finishes what is under
way, up to --grace seconds; a second one ends at once.

By default it listens for this machine alone, and then answers only to the names localhost, 127.0.0.1, [::1] and that
of --host, so that no page of the web can pass itself off as local. Beyond this machine give it an --api-key.

examples:
  jaxphoton serve
  jaxphoton serve --model vikhyatk/moondream2 --port 8000
  JAXPHOTON_API_KEY=secret jaxphoton serve --host 0.0.0.0
"""


def add_parser(subparsers) -> None:
    parser: CommandParser = subparsers.add_parser(
        "serve", help="answer over HTTP", description="Answers over HTTP.", epilog=EPILOG
    )
    add_server_options(parser)


def run(args: argparse.Namespace) -> int:
    if missing := [name.replace("_", "-") for name in NEEDED if find_spec(name) is None]:
        raise CommandError(f"serving needs {', '.join(missing)}: pip install 'jaxphoton[serve]'")
    from jaxphoton.batch.model import name_for_clients
    from jaxphoton.bodies.fetching import Fetcher
    from jaxphoton.server.listening import Listener, bound
    from jaxphoton.server.service import Service

    options = server_options(args)
    _allow_files()
    try:  # now: loading the model takes long
        socket = bound(args.host, args.port)
    except OSError as error:
        raise CommandError(f"cannot listen on {args.host} port {args.port}: {error.strerror or error}") from error
    with socket:
        with closing(_backend(args)) as backend:
            fetch = Fetcher().fetch if args.allow_remote_images else None
            service = Service(backend, [name_for_clients(args.model), *args.name], fetch)
            with _stored(args, service) as stored:
                listener = Listener(service, options, stored)
                socket.listen(BACKLOG)  # before anybody reads the address; the loop accepts in a moment
                address = _address(socket.getsockname()[1], args.host)
                _say_where(address, args, options, stored)
                _serve(listener, service, socket, args.access_log, f"ready: {address}")
    return OK


def _allow_files() -> None:
    """A connection is an open file, and many systems allow 1024 unless a process asks for more, which any may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _backend(args: argparse.Namespace) -> Backend:
    """A model in this process, or several processes with one each."""
    import dataclasses

    from jaxphoton.batch.model import load_model
    from jaxphoton.batch.workers.gpus import replica_count, replica_gpus
    from jaxphoton.batch.workers.inprocess import EngineOptions
    from jaxphoton.config.mesh import engine_meshes
    from jaxphoton.requests.adapters import FOLDER_RANK, SLOTS
    from jaxphoton.server.backend import LocalBackend
    from jaxphoton.server.replicas import ReplicaBackend

    adapters = dict(args.adapter)
    if len(adapters) < len(args.adapter):
        raise CommandError("--adapter: a name can stand for one adapter only")
    names = ("revision", "dtype", "quantize", "max_pixels", "executables", "resize", "adapter_folder")
    loading = {name: getattr(args, name) for name in names} | {"adapters": adapters or None}
    slots, rank = args.adapter_slots, args.adapter_rank
    if slots or rank:  # each goes without the other
        slots, rank = slots or SLOTS, rank or FOLDER_RANK
    options = EngineOptions(args.rows, image_workers=args.workers, adapter_slots=slots, adapter_rank=rank)
    meshes = engine_meshes(args.mesh)
    loading["mesh"] = meshes.mesh
    count = replica_count(args.replicas, meshes.copies, alone=0)
    if count != 0:
        gpus = replica_gpus(count, each=meshes.devices)
        given = {name: value for name, value in loading.items() if value is not None}
        return ReplicaBackend(gpus, {"path_or_id": args.model} | given, options, args.max_waiting)
    model = load_model(args.model, **loading)
    engine = options.applied(model.engine_config, model.family.max_context)
    if args.max_waiting is not None:
        engine = dataclasses.replace(engine, max_waiting=args.max_waiting)
    model.engine_config = engine
    return LocalBackend(model)


@contextmanager
def _stored(args: argparse.Namespace, service: Service) -> Iterator[Batches | None]:
    """Files and batches; None where nobody has named a folder for them, and the usual one cannot be used."""
    from jaxphoton.server.batching import Batches

    folder = _usual_folder(args.port) if args.data is None else args.data
    batches = Batches(
        folder,
        service.backend,
        service.models.resolve,
        args.allow_remote_images,
        lambda: service.admission.condition()[0] == "stopping",
        service.name,
    )
    with ExitStack() as opened:
        try:
            opened.enter_context(batches)
        except OSError as error:
            taken = isinstance(error, BlockingIOError)
            fault = "another server keeps its files there" if taken else error.strerror or str(error)
            if args.data is not None:
                raise CommandError(f"--data {folder}: {fault}") from error
            say("serve", f"no files and batches: {folder}: {fault}; name another folder with --data")
            yield None
        else:
            yield batches


def _usual_folder(port: int) -> Path:
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(state) / "jaxphoton" / f"serve-{port}"


def _address(port: int, host: str) -> str:
    """Where a browser on this machine finds it."""
    host = "127.0.0.1" if host == "0.0.0.0" else "::1" if host == "::" else host
    return f"http://{in_header(host)}:{port}"


def _say_where(address: str, args: argparse.Namespace, options: ServerOptions, stored: Batches | None = None) -> None:
    key = ' -H "Authorization: Bearer $KEY"' if options.keys else ""
    say("serve", f"{address} has a page, {address}/v1 the routes")
    say("serve", "POST /v1/caption /v1/query /v1/detect /v1/point /v1/segment /v1/chat/completions")
    if stored is not None:
        say("serve", f"POST /v1/files /v1/batches, kept in {stored.folder}")
    say("serve", "GET /v1/models /v1/stats /health /metrics /openapi.json")
    body = """(printf '{"image_url":"'; base64 < photo.jpg; printf '"}')"""
    say("serve", f"{body} | curl -sS {address}/v1/caption{key} -d @-")
    if not options.keys and not is_loopback(args.host):
        say("serve", "WARNING: anybody who reaches this machine may ask; give it an --api-key")


def _serve(listener: Listener, service: Service, socket: Any, access_log: bool, ready: str) -> None:
    """Listens at once, answers when the programs are compiled, and then says `ready`.

    Raises:
      EngineError: the engine cannot start.
    """
    if access_log:
        logging.getLogger("jaxphoton.access").addHandler(handler := logging.StreamHandler())
        logging.getLogger("jaxphoton.access").setLevel(logging.INFO)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    failed: list[EngineError] = []

    def start() -> None:
        try:
            service.start()
        except EngineError as error:
            failed.append(error)
            listener.stop()
        else:
            say("serve", ready)

    starting = threading.Thread(target=start, name="jaxphoton-start", daemon=True)
    starting.start()
    listener.run([socket])
    if failed:
        raise failed[0]
    if starting.is_alive():
        sys.stderr.flush()
        os._exit(OK)  # Python would wait for the compiler, which nothing stops
