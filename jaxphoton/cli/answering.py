"""What answers the images of a command: a model in this process, or several processes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jaxphoton.cli.base import CommandError
from jaxphoton.cli.images import load_model
from jaxphoton.cli.output import say
from jaxphoton.cli.tracing import recorded

if TYPE_CHECKING:
    from jaxphoton.batch.workers.engine_options import EngineOptions
    from jaxphoton.batch.workers.inprocess import LocalAnswerer
    from jaxphoton.batch.workers.pool import Replicas


@contextmanager
def answering(args: argparse.Namespace) -> Iterator[tuple[LocalAnswerer | Replicas, int]]:
    """What answers, here or in several processes, and how many."""
    from jaxphoton.batch.workers.gpus import replica_gpus
    from jaxphoton.batch.workers.inprocess import LocalAnswerer
    from jaxphoton.batch.workers.pool import Replicas

    engine = _engine_options(args)
    pictures = {
        "background": args.alpha_background,
        "allow_truncated": args.allow_truncated,
        "fast_decode": args.fast_decode,
    }
    gpus = (None,) if args.replicas == 1 else replica_gpus(args.replicas)
    if len(gpus) > 1:
        if args.trace or args.jax_profile:
            raise CommandError("--trace and --jax-profile look into one process: give --replicas 1")
        options = {"path_or_id": args.model, "revision": args.revision, "dtype": args.dtype, **pictures}
        if args.max_pixels is not None:
            options["max_pixels"] = args.max_pixels
        with Replicas(gpus, options, engine, log=lambda line: say(args.command, line)) as replicas:
            yield replicas, len(gpus)
        return
    model = load_model(args, **pictures)
    from jaxphoton.platform import calmed_interpreter  # not before: it brings jax

    model.engine_config = engine.applied(model.engine_config, model.config.text)
    with model:
        answerer = LocalAnswerer(model)
        answerer.start()
        # The trace outside of the second `with model`: closing it ends what is under way.
        with recorded(args, model), model, calmed_interpreter():
            yield answerer, 1


def _engine_options(args: argparse.Namespace) -> EngineOptions:
    """What the options say about the engine."""
    from jaxphoton.batch.workers.engine_options import EngineOptions

    # No option restricts answers: two programs less to compile.
    return EngineOptions(args.rows, args.depth, args.workers, args.deterministic, args.image_timeout, host_masks=False)
