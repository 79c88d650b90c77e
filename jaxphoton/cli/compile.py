"""`jaxphoton compile`: stores the programs of a model, compiled for this machine or for a GPU that is not here."""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxphoton.cli.base import OK, CommandError, add_adapter_room, add_quantize_option, number, say

DESCRIPTION = """\
Compiles every program that a model's engine runs and writes them to the folder DIR, which must not exist or be empty.
`--executables DIR`, and `Model.from_pretrained(..., executables=DIR)`, then start without compiling. No weight is
read, and with --gpu no GPU is needed."""
EPILOG = """\
examples:
  jaxphoton compile --model vikhyatk/moondream2 --out moondream2-here
  jaxphoton compile --model vikhyatk/moondream2 --gpu h200 --out moondream2-h200
  jaxphoton caption photos/ --out captions.jsonl --model vikhyatk/moondream2 --executables moondream2-h200

The programs are for one kind of chip, one version of jax and of jaxphoton, one model and one set of settings; others
are refused with the reason. What is compiled without its GPU was not tuned by running it there: compiled on the GPU
itself (without --gpu), products may be faster. Executables are code: use no folder that you do not trust.
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "compile", help="compile a model's programs beforehand", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument(
        "--model", default="shapes", metavar="NAME", help="a folder, a Hugging Face id, or 'shapes' (default: shapes)"
    )
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit of a Hugging Face model")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--gpu",
        choices=["h200", "a100", "l40s", "cpu"],
        help="a GPU that need not be here, or cpu for this processor (default: the device that is here)",
    )
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16"], help="precision (default: bfloat16, on a CPU float32)"
    )
    add_quantize_option(parser)
    parser.add_argument("--mesh", type=_no_mesh, help=argparse.SUPPRESS)
    parser.add_argument("--float8-experts", action="store_true", help="for experts kept as they are in the checkpoint")
    parser.add_argument("--kv-dtype", choices=["model", "float8"], default="model", help="of stored keys and values")
    parser.add_argument(
        "--kv-pages", type=number(int, 2), metavar="N", help="pages of keys and values (default: what the device holds)"
    )
    parser.add_argument("--rows", type=number(int, 1, 4096), metavar="N", help="images decoded at once")
    add_adapter_room(parser)
    parser.add_argument("--deterministic", action="store_true", help="for runs with --deterministic")


def _no_mesh(text: str) -> str:
    """An argparse type: other commands have that option."""
    raise argparse.ArgumentTypeError("programs of a mesh are not stored; the engine compiles them when it starts")


def run(args: argparse.Namespace) -> int:
    """Compiles; 0 when the folder is written."""
    if args.gpu is not None:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before jax is imported: no device but the host's is asked for
        os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # the libraries that a GPU would need
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA tells at length that it finds no GPU
    from jaxphoton.config import ConfigError
    from jaxphoton.engine.executables import ExecutablesError
    from jaxphoton.engine.gpus import NoPlugin
    from jaxphoton.engine.memory import human
    from jaxphoton.weights.checkpoint import WeightsError

    began = time.monotonic()
    try:
        with _without_cache():
            programs, size = _compile(args)
    except (ConfigError, ExecutablesError, NoPlugin, WeightsError, OSError) as error:
        raise CommandError(str(error)) from error
    count = len(programs.buckets.keys(programs.engine))
    say("compile", f"{args.out}: {count} programs, {human(size)}, in {time.monotonic() - began:.0f} s")
    return OK


@contextmanager
def _without_cache() -> Iterator[None]:
    """jax writes an executable that came from its cache, but what is written lacks functions and fails when it runs."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    options: Any = jax.config  # its options are attributes that type checkers do not know
    before = options.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # it remembers whether it is used
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _compile(args: argparse.Namespace) -> tuple[Any, int]:
    """The programs, and their bytes in the folder."""
    import jax

    from jaxphoton import platform
    from jaxphoton.engine import gpus
    from jaxphoton.engine.compiled import Programs
    from jaxphoton.engine.places import Absent, Here
    from jaxphoton.weights import hub
    from jaxphoton.weights.load import abstract_model
    from jaxphoton.weights.orbax import require_vacant

    require_vacant(args.out)
    here = None
    if args.gpu in gpus.NAMES:
        gpus.require_plugin()
        place = Absent(gpus.CHIPS[args.gpu])
        say("compile", f"for {place.told}")
    else:
        here = jax.sharding.SingleDeviceSharding(platform.find_device(args.gpu))
        place = Here(here)
    on_cpu = place.target.platform == "cpu"
    dtype = args.dtype or ("float32" if on_cpu else "bfloat16")
    path = hub.resolve(args.model, args.revision, args.float8_experts)
    family, tree = abstract_model(path, dtype, args.float8_experts, args.quantize)
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), tree)
    programs = Programs(params, family, _engine(args, on_cpu, family), place=place)
    return programs, programs.store(args.out)


def _engine(args: argparse.Namespace, on_cpu: bool, family: Any) -> Any:
    """The engine's settings. On a CPU half the pages that the rows' whole contexts need are enough for captions."""
    from jaxphoton import platform
    from jaxphoton.batch.workers.inprocess import EngineOptions
    from jaxphoton.config import EngineConfig
    from jaxphoton.engine.memory import whole_pages

    max_context = family.max_context
    engine = platform.cpu_engine(family.max_crops) if on_cpu else EngineConfig()
    engine = dataclasses.replace(
        engine, kv_dtype=args.kv_dtype, adapter_slots=args.adapter_slots, adapter_rank=args.adapter_rank
    )
    engine = EngineOptions(rows=args.rows, deterministic=args.deterministic).applied(engine, max_context)
    if args.kv_pages is not None:
        return dataclasses.replace(engine, kv_pages=args.kv_pages)
    if on_cpu and engine.kv_pages is None:
        one = whole_pages(max_context, dataclasses.replace(engine, max_rows=1))
        return dataclasses.replace(engine, kv_pages=max(one, whole_pages(max_context, engine) // 2))
    return engine
