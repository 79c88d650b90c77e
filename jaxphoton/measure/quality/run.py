"""A model in several forms, one after the other in memory, against one of them."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxphoton import platform
from jaxphoton.api import Model
from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.engine import Engine
from jaxphoton.image.prepare import Prepared
from jaxphoton.measure.quality.captions import Caption, Difference, asks_in_words, difference, write_captions
from jaxphoton.measure.quality.forms import WeightForm
from jaxphoton.measure.shapes.scoring import draw_scene, evaluate
from jaxphoton.models.protocol import Family
from jaxphoton.prompt.tokenizer import Tokenizer, load_tokenizer
from jaxphoton.weights import hub
from jaxphoton.weights.load import load_model

SEED = 4  # of scenes: none that the packaged model was trained or chosen on


@dataclass(frozen=True, slots=True)
class FormReport:
    """One form.

    Attributes:
      bytes: of all weights.
      difference: to the reference; None for that itself.
      scores: on scenes; empty without.
    """

    name: str
    bytes: int
    difference: Difference | None
    scores: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured.

    Attributes:
      model: as a user names it.
      path: its files.
      dtype: of what is not in few bits, where a form does not say.
      pictures: to be captioned.
      max_tokens: of a caption.
      scenes: so many are scored.
    """

    model: str
    path: Path
    dtype: str
    pictures: Sequence[Prepared]
    max_tokens: int
    scenes: int = 0


def compare_forms(subject: Subject, against: WeightForm, forms: Sequence[WeightForm]) -> Iterator[FormReport]:
    """The report of `against`, then that of each form; the host keeps of a model what it said, and nothing else.

    Raises:
      WeightsError, ConfigError, EngineError: a form cannot be loaded or run.
      ValueError: the model writes nothing about a picture.
    """
    report, captions = _measured(subject, against, None)
    yield report
    for form in forms:
        yield _measured(subject, form, captions)[0]


def scenes(count: int) -> list[np.ndarray]:
    """Pictures of scenes, uint8 [height, width, 3]."""
    return [draw_scene(SEED, index)[0].pixels for index in range(count)]


def _measured(subject: Subject, form: WeightForm, reference: list[Caption] | None) -> tuple[FormReport, list[Caption]]:
    dtype = jnp.dtype(form.dtype or subject.dtype)
    family, params = load_model(subject.path, dtype, platform.find_device(None), quantize=form.quantize)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    with ExitStack() as stack:
        model = stack.enter_context(_with_texts(subject, family, params)) if subject.scenes else None
        engine = model.engine if model else stack.enter_context(_engine(family, params))
        encode = _tokenizer(subject, family).encode if asks_in_words(family) else None
        captions = write_captions(engine, params, family, subject.pictures, subject.max_tokens, reference, encode)
        scores = evaluate(model, SEED, subject.scenes) if model else {}
    del params, model, engine
    gc.collect()  # an engine's parts refer to each other: its parameters would stay beside those of the next form
    found = None if reference is None else difference(reference, captions)
    return FormReport(form.name, size, found, scores), captions


def _with_texts(subject: Subject, family: Family, params: Any) -> Model:
    """A model that can be asked in words; scenes ask in words."""
    return Model(params, family.config, _tokenizer(subject, family))


def _tokenizer(subject: Subject, family: Family) -> Tokenizer:
    return load_tokenizer(hub.resolve_tokenizer(subject.model, subject.path, family), family.vocab_size)


def _engine(family: Family, params: Any) -> Engine:
    device = next(iter(jax.tree.leaves(params)[0].devices()))
    return Engine(Programs(params, family, platform.default_engine(device, family.max_crops)))
