"""What a run would be about, and what it would need."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from jaxphoton.batch.errors import BatchError
from jaxphoton.batch.observer import RunObserver
from jaxphoton.batch.options import RunOptions
from jaxphoton.batch.probe import probe
from jaxphoton.batch.summary import cost_per_million, duration
from jaxphoton.batch.work import Asked, Inputs, Work
from jaxphoton.config import EngineConfig
from jaxphoton.image.pillow import MAX_PIXELS
from jaxphoton.measure.cost_model import planned_family
from jaxphoton.measure.memory_plan import Planner
from jaxphoton.models.protocol import Family
from jaxphoton.models.registry import packaged

_DEFAULT = RunOptions()
_PROBED = 10_000  # headers read; the rest is taken to be alike


def dry_run(
    inputs: Inputs,
    out: str | os.PathLike[str] | None = None,
    ask: Asked = "caption",
    *,
    model: str | os.PathLike[str] = "shapes",
    options: RunOptions = _DEFAULT,
    rate: float | None = None,
    observer: RunObserver | None = None,
    **more: Any,
) -> Iterator[str]:
    """What `run` would do with these arguments, as lines for people. Asks nothing, writes nothing, downloads nothing.

    Args:
      rate: images a second, of an earlier run, for an estimate of the time.
      observer: hears what is worth a word, as that of a run does.

    Raises:
      BatchError: as `run`; and where the settings of the model are not known here.
    """
    work = Work.of(inputs, out, ask, options.changed(**more))
    watching = observer or RunObserver()
    for line in work.notes():
        watching.note(line)
    family = _family(os.fspath(model))
    work.questions.check(family.skills())
    total = work.selection.count(work.source)
    most = work.options.pictures.max_pixels or MAX_PIXELS
    found = probe(work.selection.items(work.source), family.pictures, most, _PROBED)
    images = found.probed if total is None else total
    more_or_less = " or more" if total is None and found.probed == _PROBED else ""
    yield f"{images:,}{more_or_less} images, of which {found.probed:,} were looked at (headers only)"
    for line in [*work.selection.part(work.source)[0].skipped.lines(), *found.lines()]:
        yield f"  {line}"
    yield from _tokens(work, family, images)
    yield from _memory(work, family)
    yield from _time(work, images, rate)


def _family(model: str) -> Family:
    """Of a model that may not have been downloaded, known by what its name has in it; BatchError if it is not."""
    own = model.lower().rstrip("/").rpartition("/")[2]
    known = () if os.path.lexists(model) else packaged()
    try:
        return planned_family(next((name for name in known if name in own), model))
    except ValueError as error:
        raise BatchError(str(error)) from error


def _tokens(work: Work, family: Family, images: int) -> Iterator[str]:
    questions = work.questions
    asks = sum(questions.captions if each.kind == "caption" else 1 for each in questions.each)
    prefix, most = family.prefix_lengths[-1], work.options.texts.max_tokens or family.defaults.max_tokens
    bound = "at most " if len(family.prefix_lengths) > 1 else ""
    answers = f"at most {images * asks * most:,} generated"
    yield f"tokens: {bound}{images * prefix:,} of the images ({prefix} each), {answers}"


def _memory(work: Work, family: Family) -> Iterator[str]:
    model = work.options.model
    engine, dtype = EngineConfig().with_rows(model.rows or EngineConfig().max_rows), model.dtype or "bfloat16"
    yield f"memory of {engine.max_rows} images at once of a whole context, in {dtype}:"
    for line in Planner(family, dtype).load(engine, family.max_context).lines():
        yield f"  {line}"


def _time(work: Work, images: int, rate: float | None) -> Iterator[str]:
    if rate is None:
        yield "time: give --rate, the images a second of an earlier run, for an estimate"
        return
    yield f"time: {duration(images / rate)} at {rate:g} images/s"
    price = work.options.account.gpu_hour_price
    if price is not None:
        whole = cost_per_million(rate, price)
        yield f"cost: {whole * images / 1e6:,.2f} ({whole:,.2f} for a million images)"
