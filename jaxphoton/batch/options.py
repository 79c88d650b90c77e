"""What a run may be told besides its inputs, its output and what is asked; with the defaults of the command line."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_args

from jaxphoton.batch.checks import (
    adapters,
    colour,
    mesh,
    number,
    one_of,
    option,
    path,
    setting,
    several,
    shard_of,
    text,
    yes,
)
from jaxphoton.batch.errors import OptionError
from jaxphoton.config.fields import MOST
from jaxphoton.config.quantization import NAMES as QUANTIZE
from jaxphoton.image.ways import RESIZES, Resize
from jaxphoton.messages import quoted
from jaxphoton.requests.settings import Settings

Form = Literal["jsonl", "sidecar", "parquet", "webdataset", "coco", "yolo"]
FORMS: tuple[Form, ...] = get_args(Form)
Existing = Literal["skip", "overwrite", "append", "prepend"]
EXISTING: tuple[Existing, ...] = get_args(Existing)
ImageSuffix = Literal["keep", "jpg"]
IMAGE_SUFFIX: tuple[ImageSuffix, ...] = get_args(ImageSuffix)
Deduping = Literal["none", "sha256"]
Precision = Literal["float32", "bfloat16"]
_SETTINGS = tuple(each.name for each in dataclasses.fields(Settings))
WHOLE = (0, 1)  # the shard that is all
MOST_RETRIES = 100  # of an answer; what looped so often always will


class _Part:
    """Options that are checked as they are made."""

    def __post_init__(self):
        for each in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            if value is None and each.default is None:
                continue
            try:
                object.__setattr__(self, each.name, each.metadata["check"](value))
            except ValueError as error:
                raise OptionError(f"{{{each.name}}} must be {error}, not {{value}}", value=quoted(value)) from None

    def given(self) -> list[str]:
        """The names of those that are not as they are by default."""
        return [each.name for each in dataclasses.fields(self) if getattr(self, each.name) != each.default]  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputOptions(_Part):
    """Which images, and how they are read.

    Attributes:
      limit: the first so many.
      shard: (index, count): a part of the input; together the parts are the whole.
      exclude: globs of files and folders to leave out.
      dedupe: "sha256" to ask about equal files once.
      image_column, key_column, root: of lists, tables and tars, see `SourceOptions`.
      timeout: seconds after which an address counts as failed.
      retries: tries again of an address whose server is overloaded or whose connection breaks.
    """

    limit: int | None = option(None, number(int, 1))
    shard: tuple[int, int] = option(WHOLE, shard_of)
    exclude: tuple[str, ...] = option((), several(text))
    dedupe: Deduping = option("none", one_of(*get_args(Deduping)))
    image_column: str | None = option(None, text)
    key_column: str | None = option(None, text)
    root: str | None = option(None, path)
    timeout: float = option(30.0, number(float, 0, above=True))
    retries: int = option(3, number(int, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions(_Part):
    """Where results go, and what becomes of what is there.

    Attributes:
      form: of the output, if its suffix does not say it.
      existing, extension, image_suffix: of texts and packed images, see `ExportOptions`.
      journal: by default beside the output.
      allow_changes: go on though options differ from those of the journal.
      restart: throw the journal away and begin again.
      retry_failed: try the images again that failed before.
      report: a page to look at.
      keep: files that no output may replace, besides those of the run and of its input.
    """

    form: Form | None = option(None, one_of(*FORMS))
    existing: Existing = option("skip", one_of(*EXISTING))
    extension: str = option(".txt", text)
    image_suffix: ImageSuffix = option("keep", one_of(*IMAGE_SUFFIX))
    journal: str | None = option(None, path)
    allow_changes: bool = option(False, yes)
    restart: bool = option(False, yes)
    retry_failed: bool = option(False, yes)
    report: str | None = option(None, path)
    keep: tuple[str, ...] = option((), several(path))


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureOptions(_Part):
    """How pictures are read.

    Attributes:
      max_pixels: larger ones are refused; None for a safe bound.
      background: RGB behind transparent pixels.
      allow_truncated: use what a file cut short still shows.
      fast_decode: read large JPEGs at a reduced size.
      resize: "exact", by Pillow, or "fast", in a sixth to a ninth of its time and at most 2 levels away; None for what
        the journal was begun with, and where there is none the fast one if it can be had.
    """

    max_pixels: int | None = option(None, number(int, 1))
    background: tuple[int, int, int] = option((255, 255, 255), colour)
    allow_truncated: bool = option(False, yes)
    fast_decode: bool = option(False, yes)
    resize: Resize | None = option(None, one_of(*RESIZES))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions(_Part):
    """How a model is loaded and run.

    Attributes:
      revision: branch, tag or commit of a Hugging Face model.
      dtype: by default bfloat16, on a CPU float32.
      quantize: "int8", "float8", "int4" or "int4-64": large matrices in few bits; "none" for none, whatever the
        checkpoint has.
      mesh: "model=2": each engine has so many devices, and shares the model out to them; "data" counts replicas.
      rows: images decoded at once; None for what fits.
      depth: launches under way at once: 1 blocks, 2 pipelines.
      workers: processes that decode pictures.
      image_timeout: seconds that decoding a picture may take; then another process tries, once.
      deterministic: the same result to the last bit in any order, sharding and company; slower.
      replicas: engine processes, each with a GPU, or those of a mesh, of its own; None for as many as are visible.
      executables: a folder of programs that `jaxphoton compile` has stored.
      adapters: paths by the names that `Ask.adapter` knows them by. A single one is meant where no ask names any.
    """

    revision: str | None = option(None, text)
    dtype: Precision | None = option(None, one_of(*get_args(Precision)))
    quantize: str | None = option(None, one_of(*QUANTIZE))
    mesh: str | None = option(None, mesh)
    rows: int | None = option(None, number(int, 1, most=MOST))
    depth: int | None = option(None, one_of(1, 2))
    workers: int | None = option(None, number(int, 0))
    image_timeout: float | None = option(None, number(float, 0, above=True))
    deterministic: bool = option(False, yes)
    replicas: int | None = option(1, lambda value: None if value is None else number(int, 1)(value))
    executables: str | None = option(None, path)
    adapters: tuple[tuple[str, str], ...] = option((), adapters)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOptions(_Part):
    """How answers are generated, and what becomes of captions. Greedy by default.

    Attributes:
      temperature, top_p, max_tokens, max_objects, seed: as in the `settings` of `Model`.
      captions_per_image: from consecutive seeds; more than one needs a temperature.
      prefix, suffix: put around every caption.
      retry_loops: how often a caption or an answer that repeats itself is asked again at most, see `batch.retries`.
    """

    temperature: float = option(0.0, setting("temperature"))
    top_p: float | None = option(None, setting("top_p"))
    max_tokens: int | None = option(None, setting("max_tokens"))
    max_objects: int | None = option(None, setting("max_objects"))
    seed: int | None = option(None, setting("seed"))
    captions_per_image: int = option(1, number(int, 1))
    prefix: str = option("", text)
    suffix: str = option("", text)
    retry_loops: int = option(0, number(int, 0, most=MOST_RETRIES))

    @property
    def settings(self) -> dict[str, Any]:
        """Those that were given; the model's defaults are left to the model."""
        values = {name: getattr(self, name) for name in _SETTINGS}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountOptions(_Part):
    """What is told of a run besides its results.

    Attributes:
      trace: a file for a timeline (ui.perfetto.dev); of a long run its last 20,000 launches.
      jax_profile: a folder for a profile of jax.profiler; for runs of seconds.
      gpu_hour_price: to tell what a million images would cost.
    """

    trace: str | None = option(None, path)
    jax_profile: str | None = option(None, path)
    gpu_hour_price: float | None = option(None, number(float, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """All options of a run. `RunOptions().changed(limit=5, rows=8)` finds the part that each belongs to."""

    inputs: InputOptions = InputOptions()
    output: OutputOptions = OutputOptions()
    pictures: PictureOptions = PictureOptions()
    model: ModelOptions = ModelOptions()
    texts: TextOptions = TextOptions()
    account: AccountOptions = AccountOptions()

    def changed(self, **options: Any) -> RunOptions:
        """These, with other values for some.

        Raises:
          TypeError: there is no such option.
          OptionError: a value that an option cannot have; the message names it and says what is allowed.
        """
        parts = {}
        for part in dataclasses.fields(self):
            there = getattr(self, part.name)
            mine = {each.name for each in dataclasses.fields(there)} & options.keys()
            if mine:
                parts[part.name] = dataclasses.replace(there, **{name: options.pop(name) for name in mine})
        for name in options:
            close = get_close_matches(name, NAMES, 1)
            meant = f"did you mean {close[0]}?" if close else f"there are {', '.join(NAMES)}"
            raise TypeError(f"a run has no option {quoted(name)}; {meant}")
        return dataclasses.replace(self, **parts)


_PARTS = (InputOptions, OutputOptions, PictureOptions, ModelOptions, TextOptions, AccountOptions)
NAMES = tuple(each.name for part in _PARTS for each in dataclasses.fields(part))
