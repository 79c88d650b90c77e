"""Options with which a command records what it does."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from jaxphoton.cli.base import CommandError


def add_trace_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("looking at a run")
    group.add_argument(
        "--depth", type=int, choices=[1, 2], help="launches under way at once: 1 blocks, 2 pipelines (default: 2)"
    )
    group.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="write a timeline for ui.perfetto.dev and `jaxphoton timeline`; of a long run its last 20,000 launches",
    )
    group.add_argument(
        "--jax-profile",
        type=Path,
        metavar="DIR",
        help="write a profile of jax.profiler, CUDA graphs kept on; for runs of seconds",
    )


def before_loading(args: argparse.Namespace) -> None:
    """What has to be known before the first use of a device, and before a long load.

    Raises:
      CommandError: there is no folder for the trace.
    """
    if args.trace and not args.trace.absolute().parent.is_dir():
        raise CommandError(f"--trace {args.trace}: no folder {args.trace.absolute().parent}")
    if args.jax_profile:
        from jaxphoton.measure.profile import keep_graphs

        keep_graphs()


@contextmanager
def recorded(args: argparse.Namespace, model: Any) -> Iterator[None]:
    """Records what the model does inside, as the options ask."""
    with ExitStack() as stack:
        if args.trace:
            from jaxphoton.measure.timeline import recording

            try:
                stack.enter_context(recording(model, args.trace, model=args.model))
            except OSError as error:
                raise CommandError(f"--trace {args.trace}: {error.strerror}") from error
        if args.jax_profile:
            from jaxphoton.measure.profile import profiling

            stack.enter_context(profiling(model, args.jax_profile))
        yield
