"""From the options of a command to a run over all its images."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxphoton.cli.answering import answering
from jaxphoton.cli.base import INTERRUPTED, OK, SOME_FAILED, CommandError, settings_of
from jaxphoton.cli.dry_run import dry_run
from jaxphoton.cli.images import digest_model, find_model
from jaxphoton.cli.output import STDOUT, Lines, check_output, places_of, say, write_outputs
from jaxphoton.cli.tracing import before_loading

if TYPE_CHECKING:
    from jaxphoton.batch.exports import ExportOptions
    from jaxphoton.batch.exports.existing import ExistingTexts
    from jaxphoton.batch.journal import Journal
    from jaxphoton.batch.places import Places
    from jaxphoton.batch.questions import Question, Questions
    from jaxphoton.batch.sources import Item, Selection, Source
    from jaxphoton.cli.progress import Progress

ALL = (0, 1)
_COUNT_S = 0.5  # to know the number of images for the first line


def run_batch(args: argparse.Namespace, tasks: Callable[[], tuple[Question, ...]], **texts: Any) -> int:
    """Asks about every image that the options name; the exit code.

    Args:
      tasks: what to ask.
      texts: more fields of the `Questions`.
    """
    from jaxphoton.batch.errors import BatchError, SettingsDiffer
    from jaxphoton.batch.exports import ExportOptions
    from jaxphoton.batch.exports.existing import ExistingTexts
    from jaxphoton.batch.questions import Questions
    from jaxphoton.batch.sources import Selection, parse_shard
    from jaxphoton.messages import listed

    try:
        questions = Questions(tasks(), settings_of(args), extension=args.extension, **texts)
        selection = Selection(parse_shard(args.shard) if args.shard else ALL, args.limit)
        places = places_of(args, selection.shard)
        options = ExportOptions(args.existing, extension=args.extension, image_suffix=args.image_suffix)
        existing = ExistingTexts(places.out, places.form, options, {question.kind for question in questions.each})
        source = _source(args, questions, existing)
        if named := (*questions.columns, *questions.possible_columns):
            questions = questions.over(source.columns(named))
            if questions.plain_words:
                _say(
                    args,
                    f"no variables, so left as they are: {listed(f'{{{word}}}' for word in questions.plain_words)}",
                )
        if args.dry_run:
            return dry_run(args, questions, source, selection)
        check_output(args, questions, places, source)
        # Before the programs are compiled, and before a journal keeps the digest of a model that cannot be loaded, or
        # all files of another folder are read for it.
        model, config = find_model(args)
        questions.check(config.tokenizer)
        with _open_journal(args, questions, places, model) or nullcontext() as journal:
            return _run(_Work(args, questions, source, selection, places, options, existing), journal)
    except SettingsDiffer as error:
        raise CommandError(f"{error}. Go on with --allow-changes, or begin again with --restart") from error
    except BatchError as error:
        raise CommandError(str(error)) from error


def _source(args: argparse.Namespace, questions: Questions, existing: ExistingTexts) -> Source:
    from jaxphoton.batch.sources import SourceOptions, open_source
    from jaxphoton.batch.sources.retry import RetryPolicy
    from jaxphoton.batch.variables import CAPTION_COLUMNS

    options = SourceOptions(
        args.image_column,
        args.key_column,
        (*CAPTION_COLUMNS, *existing.columns, *questions.possible_columns),
        questions.columns,
        args.root,
        tuple(args.exclude),
        RetryPolicy(args.timeout, args.retries),
    )
    return open_source(args.input, options)


@dataclass(frozen=True, slots=True)
class _Work:
    """All that a run is about."""

    args: argparse.Namespace
    questions: Questions
    source: Source
    selection: Selection
    places: Places
    options: ExportOptions
    existing: ExistingTexts


def _open_journal(args: argparse.Namespace, questions: Questions, places: Places, model: Path) -> Journal | None:
    from jaxphoton.batch.journal import Journal
    from jaxphoton.batch.journal.reading import JournalReader
    from jaxphoton.batch.journal.record import Header

    path = places.journal
    if path is None:
        return None
    settings = _settings(args, questions)
    if places.form == "webdataset" and places.one_file is not None and places.shard != ALL:
        settings["shard"] = "/".join(map(str, places.shard))  # the tar of one shard would replace that of another
    header = Header(settings, digest_model(args, model))
    if args.restart and path.exists():
        JournalReader(path).close()  # refuses what is not a journal
        try:
            path.unlink()
        except OSError as error:
            raise CommandError(f"{path}: cannot be removed: {error.strerror}") from error
    journal = Journal(path, header, allow_changes=args.allow_changes, retry_failed=args.retry_failed)
    if journal.torn:
        _say(args, f"{path}: a torn last line was cut off; its image is done again")
    for damage in journal.damage[:5]:
        _say(args, f"{path}: {damage}; its image is done again")
    return journal


def _settings(args: argparse.Namespace, questions: Questions) -> dict[str, Any]:
    """What changes the results, for the header of the journal."""
    return {
        "input": [spec.rstrip("/") or spec for spec in args.input],
        "columns": {"image": args.image_column, "key": args.key_column, "root": args.root}
        # Only where it is asked for: journals from before this option go on.
        | ({"exclude": args.exclude} if args.exclude else {}),
        **questions.description(),
        "pictures": {
            "max_pixels": args.max_pixels,
            "background": args.alpha_background,
            "allow_truncated": args.allow_truncated,
            "fast_decode": args.fast_decode,
        },
        "dtype": args.dtype,
        "deterministic": (args.rows or True) if args.deterministic else False,
    }


def _run(work: _Work, journal: Journal | None) -> int:
    from jaxphoton.batch.summary import Tally
    from jaxphoton.cli.progress import Progress

    args, places = work.args, work.places
    done = journal.counts.total() if journal is not None else 0
    tally, figures, stopped = Tally(), {}, False
    there = places.one_file is not None and os.path.exists(places.one_file)
    with Progress(tally, lambda: work.selection.count(work.source), done) as progress:
        items = _items(work, journal, progress)
        first = next(items, None)
        if first is None and not done and not work.existing.kept and work.selection.shard == ALL:
            raise CommandError("; ".join(["no image found", *work.source.skipped.lines()]))
        _greet(args, progress.total(_COUNT_S), done, first is None)
        if first is not None:
            json_lines = journal is None or args.out == STDOUT
            lines = Lines(journal, tally, progress, json_lines, args.quiet, work.questions)
            figures, stopped = _answer(args, work.questions, chain([first], items), lines, journal, progress)
    for line in work.selection.part(work.source)[0].skipped.lines():
        _say(args, line)
    for line in tally.lines(figures) if figures else ():
        _say(args, line)
    failed, lost, kept = tally.failed, 0, work.existing.kept
    if journal is not None:
        journal.flush()
        failed = journal.counts["failed"]
        if work.selection.shard != ALL and not there and places.one_file and os.path.exists(places.one_file):
            raise CommandError(
                f"{places.one_file} was made by another run meanwhile; the results are in {journal.path}"
            )
        report = write_outputs(args, places, work.options, work.source, figures)
        lost, kept = report.lost, kept + report.kept
    if kept:
        were = "texts that were" if kept > 1 else "text that was"
        _say(args, f"kept {kept:,} {were} there already (--existing overwrite, append or prepend changes them)")
    if failed or lost:
        of = tally.images if journal is None else journal.counts.total()
        also = f", and {lost:,} result{'s' * (lost != 1)} could not be written" if lost else ""
        _say(args, f"{failed:,} of {of:,} image{'s' * (of != 1)} failed{also}")
    if stopped:
        _say(args, "interrupted" + ("" if journal is None else "; the same command goes on"))
        return INTERRUPTED
    return SOME_FAILED if failed or lost else OK


def _items(work: _Work, journal: Journal | None, progress: Progress) -> Iterator[Item]:
    """What has to be asked about: not what is in the journal, and nothing whose text is kept."""

    def done(key: str) -> bool:
        if journal is not None and key in journal:
            return True
        if found := work.existing.has_key(key):
            progress.skip()
        return found

    for item in work.selection.items(work.source, done):
        if work.existing.has(item):
            progress.skip()
        else:
            yield item


def _answer(
    args: argparse.Namespace,
    questions: Questions,
    items: Iterator[Item],
    lines: Lines,
    journal: Journal | None,
    progress: Progress,
) -> tuple[dict[str, Any], bool]:
    """Loads the model and runs; the figures, and whether the run was stopped."""
    from jaxphoton.batch.dedupe import Dedupe
    from jaxphoton.batch.runner import Runner
    from jaxphoton.batch.signals import stoppable

    before_loading(args)
    dedupe = Dedupe(journal.path) if args.dedupe == "sha256" and journal is not None else None
    with answering(args) as (answerer, gpus), stoppable() as stop:
        progress.start(answerer.compiling)
        Runner(answerer, questions, lines, lambda: stop.asked, dedupe).run(items)
        price = None if args.gpu_hour_price is None else gpus * args.gpu_hour_price
        return progress.tally.summary(answerer.stages, price), stop.asked


def _greet(args: argparse.Namespace, total: int | None, done: int, finished: bool) -> None:
    how = "greedy" if args.temperature == 0 else f"temperature {args.temperature:g}"
    many = "images" if total is None else f"{total:,} image{'s' * (total != 1)}"
    before = f", {done:,} done before" if done else ""
    _say(args, f"{many}{before}, model {args.model}, {how}")
    if finished:
        _say(args, "nothing is left to do")


def _say(args: argparse.Namespace, text: str) -> None:
    say(args.command, text)
