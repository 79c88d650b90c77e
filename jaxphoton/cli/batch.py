"""From the options of a command to a run over all its images."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxphoton.batch.errors import SettingsDiffer
from jaxphoton.batch.options import NAMES, RunOptions
from jaxphoton.cli.base import INTERRUPTED, OK, SOME_FAILED, STDOUT, CommandError, say, spelled
from jaxphoton.config.mesh import engine_meshes
from jaxphoton.messages import quoted

if TYPE_CHECKING:
    from jaxphoton.batch.summary import RunResult
    from jaxphoton.batch.work import Asked


@dataclass(frozen=True, slots=True)
class BatchCommand:
    """What a command line says about a run.

    Attributes:
      name: of the command.
      inputs, out, model, options: as in `jaxphoton.batch.run`; `out` may be `STDOUT`.
      quiet: no line for each image.
      dry_run, rate: ask nothing; images a second, for the time of that.
      together: which of several processes this is, the arguments of `jaxphoton.distributed.start`; None where it is
        alone.
    """

    name: str
    inputs: tuple[str, ...]
    out: str | None
    model: str
    options: RunOptions
    quiet: bool
    dry_run: bool
    rate: float | None
    together: tuple[str | None, int | None, int | None] | None = None


def parsed(args: argparse.Namespace) -> BatchCommand:
    """The options of `add_batch_options` and of the command.

    Raises:
      BatchError: they are none, or do not go together.
    """
    from jaxphoton.batch.sources import parse_shard

    given = {name: getattr(args, spelled(name)[2:].replace("-", "_"), None) for name in NAMES}
    given = {name: value for name, value in given.items() if value is not None} | {"replicas": args.replicas}
    if args.shard:
        given["shard"] = parse_shard(args.shard)
    prompt = getattr(args, "prompt_file", None)
    given["keep"] = [*([] if prompt is None else [prompt]), *args.flagfiles]
    return BatchCommand(
        args.command,
        tuple(args.input),
        args.out,
        args.model,
        RunOptions().changed(**given),
        args.quiet,
        args.dry_run,
        args.rate,
        _together(args),
    )


def _together(args: argparse.Namespace) -> tuple[str | None, int | None, int | None] | None:
    place = args.coordinator, args.processes, args.process
    if place == (None, None, None):
        return None
    if args.mesh is None:
        raise CommandError("several processes share one model over a mesh: give --mesh")
    if args.replicas != 1 or engine_meshes(args.mesh).copies != 1:
        raise CommandError("--coordinator is for one engine over several processes: give neither --replicas nor data=")
    if args.coordinator == "auto":
        return (None, *place[1:])
    if None in place:
        raise CommandError("--coordinator, --processes and --process belong together, unless --coordinator is auto")
    host, _, port = args.coordinator.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal():
        raise CommandError(f"--coordinator is HOST:PORT or auto, not {quoted(args.coordinator)}")
    if args.process >= args.processes:
        raise CommandError(f"--process is 0 to {args.processes - 1}, not {args.process}")
    return place


def run_batch(command: BatchCommand, ask: Asked) -> int:
    """Asks about every image that the options name; the exit code."""
    from jaxphoton.batch.dryrun import dry_run
    from jaxphoton.batch.running import run
    from jaxphoton.cli.shown import Shown, print_line

    options, out = command.options, command.out
    if out == STDOUT:
        if options.output.form not in (None, "jsonl"):
            raise CommandError(
                f"--out {STDOUT} is standard output, which takes JSON lines and not {options.output.form}"
            )
        out, options = None, dataclasses.replace(options, output=dataclasses.replace(options.output, form=None))
    temperature = options.texts.temperature
    how = "greedy" if temperature == 0 else f"temperature {temperature:g}"
    shown = Shown(command.name, f"model {command.model}, {how}", command.out == STDOUT, command.quiet)
    if command.dry_run:
        lines = dry_run(
            command.inputs, out, ask, model=command.model, options=options, rate=command.rate, observer=shown
        )
        for line in lines:
            print_line(line)
        return OK
    if command.together is not None and _follows(command):
        return OK
    try:
        result = run(command.inputs, out, ask, model=command.model, options=options, observer=shown, signals=True)
    except SettingsDiffer as error:
        raise CommandError(f"{error}. Go on with --allow-changes, or begin again with --restart") from error
    return _told(command.name, result)


def _follows(command: BatchCommand) -> bool:
    """Joins this process to the others; True when it was one that follows, and process 0 has ended."""
    assert command.together is not None
    from jaxphoton import distributed
    from jaxphoton.batch.model import NamedModel
    from jaxphoton.processes.peers import Follower

    distributed.start(*command.together)
    peers = distributed.peers()
    if not isinstance(peers, Follower):
        return False
    say(command.name, f"process {peers.number} of {peers.processes} works for process 0")
    with distributed.left_to_leader():
        NamedModel(command.model, command.options).follow()
    return True


def _told(name: str, result: RunResult) -> int:
    """Says what a run came to; the exit code."""
    failed, lost, kept = result.failed, result.lost, result.kept
    if kept:
        were = "texts that were" if kept > 1 else "text that was"
        say(name, f"kept {kept:,} {were} there already (--existing overwrite, append or prepend changes them)")
    if failed or lost:
        also = f", and {lost:,} result{'s' * (lost != 1)} could not be written" if lost else ""
        say(name, f"{failed:,} of {result.done:,} image{'s' * (result.done != 1)} failed{also}")
    if result.stopped:
        say(name, "interrupted" + ("" if result.journal is None else "; the same command goes on"))
        return INTERRUPTED
    return SOME_FAILED if failed or lost else OK
