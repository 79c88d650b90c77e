"""Settings of the engine."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from jaxphoton.config.fields import MOST, ascending, check_fields, choice, fitting, flag, is_whole, real, require, whole

KV_DTYPES = ("model", "float8")
KERNELS = ("auto", "reference", "triton", "interpret")
# What a dense layer of a decode step consists of: the sum of what was computed before and its LayerNorm; the product
# with all input matrices, and gelu; rotation, write and attention; the product with all output matrices.
STEP_PARTS = ("norm", "input", "attention", "output")
STEP_FORMS = {"xla": (), "fused": STEP_PARTS}


def step_parts(form: str) -> tuple[str, ...] | None:
    """The parts of a `step_form` that kernels compute; None for what is none, and for "auto"."""
    if form in STEP_FORMS:
        return STEP_FORMS[form]
    named = form.split("+")
    return tuple(named) if named == [part for part in STEP_PARTS if part in named] else None


def _is_step_form(value: Any) -> bool:
    return isinstance(value, str) and (value == "auto" or step_parts(value) is not None)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How the engine runs. Every combination of buckets that `max_rows` sequences can fill is one compiled program.
    Wrong settings are a ConfigError.

    Attributes:
      max_rows: sequences decoded at once.
      depth: launches under way at once; 1 blocks on every step, 2 pipelines.
      page_size: positions a key/value page holds.
      kv_pages: pages of the pool; None sizes it for `max_rows` sequences of a whole context, or as many pages as fit.
      memory_fraction: share of the device's memory (of what its allocator can hand out) that the engine may fill.
      step_rows: batch sizes of the decode step. A row alone may round otherwise than one of several.
      prefill_rows: batch sizes of a prefill.
      prefill_lengths: chunk lengths of a prefill.
      vision: (images, crops) that one vision launch takes; None for buckets fit for the model.
      max_waiting: requests that may wait; more are refused (batches and lists of images wait themselves).
      image_workers: processes that decode and crop the images of a batch; None for half the cores (at most 8), 0 for
        the calling thread.
      image_timeout: seconds that such a process may be at one image; then another tries, once.
      host_masks: compile what requests need whose answers the host restricts (a JSON schema, choices).
      share_prefixes: let questions about one image share its pages.
      fixed_shapes: one bucket of each kind, one request a prefill, nothing shared: a request's result is then the
        same to the last bit whatever else runs (`kv_pages` must be enough that none is set back).
      kernels: what computes attention and sampling: "reference" (plain XLA), "triton", "interpret" (Triton kernels
        interpreted, for tests) or "auto", the kernels wherever they run.
      step_form: how the dense layers of a decode step are computed: "xla" (products and norms by XLA), "fused" (by few
        kernels), the parts that kernels compute in order as "norm+attention+output", or "auto", the form measured as
        the fastest on this kind of GPU, and "xla" where none was measured. `kernels` says which kernels. Of layers with
        experts it is input product and attention alone, of Llama's the attention.
      kv_dtype: of stored keys and values: "model" (that of the weights), or "float8" (e4m3: half the bytes of bfloat16,
        scaled by the checkpoint's factors where it has them).
      adapter_slots: adapters that rows of one batch may have; more may be asked for, and wait. 0: none at all, and
        programs without them.
      adapter_rank: the largest rank that an adapter may have; smaller ones take as much room.
    """

    max_rows: int = whole(32, 1, MOST)
    depth: int = whole(2, 1, 2)
    page_size: int = whole(16, 1, MOST)
    kv_pages: int | None = whole(None, 2, MOST)  # page 0 is nobody's
    memory_fraction: float = real(0.9, 0, 1)
    step_rows: tuple[int, ...] = ascending((1, 8, 32), 1)
    prefill_rows: tuple[int, ...] = ascending((1, 4), 1)
    prefill_lengths: tuple[int, ...] = ascending((32, 128), 1)
    vision: tuple[tuple[int, int], ...] | None = None
    max_waiting: int = whole(1024, 0, MOST)
    image_workers: int | None = whole(None, 0, MOST)
    image_timeout: float = real(60.0, 0, math.inf)
    host_masks: bool = flag(True)
    share_prefixes: bool = flag(True)
    fixed_shapes: bool = flag(False)
    kernels: str = choice(*KERNELS)
    step_form: str = fitting("auto", _is_step_form, f"'auto', 'xla', 'fused' or some of {'+'.join(STEP_PARTS)}")
    kv_dtype: str = choice(*KV_DTYPES)
    adapter_slots: int = whole(0, 0, MOST)
    adapter_rank: int = whole(16, 1, MOST)

    @property
    def most_requests(self) -> int:
        """Requests in the engine at once, of everybody, waiting and running; more are refused, or wait (batches)."""
        return self.max_rows + self.max_waiting

    @property
    def batch_requests(self) -> int:
        """Requests that one batch keeps in the engine: while the rows run, the next are ready.

        It bounds all that a batch has under way. So many images, too, have been read and not answered; those of them
        that are being prepared are further bounded by what the image workers hold. Only a single image that is asked
        more than this has all its requests in the engine, as far as `most_requests` lets them in.
        """
        return min(2 * self.max_rows, self.most_requests)

    def with_rows(self, rows: int) -> EngineConfig:
        """The same with another number of rows, and a step of just so many."""
        return replace(self, max_rows=rows, step_rows=(*(size for size in self.step_rows if size < rows), rows))

    def __post_init__(self):
        for name in ("step_rows", "prefill_rows", "prefill_lengths"):
            if isinstance(given := getattr(self, name), list):
                object.__setattr__(self, name, tuple(given))
        if isinstance(self.vision, (list, tuple)) and all(isinstance(pair, (list, tuple)) for pair in self.vision):
            object.__setattr__(self, "vision", tuple(map(tuple, self.vision)))
        check_fields(self, "EngineConfig")
        require(
            self.vision is None or _are_sizes(self.vision), "EngineConfig.vision must be pairs (images, crops) or None"
        )
        require(max(self.step_rows) >= self.max_rows, "the largest of step_rows must hold max_rows")
        require(self.image_timeout > 0, "EngineConfig.image_timeout must be above 0")
        require(self.memory_fraction > 0, "EngineConfig.memory_fraction must be above 0")


def _are_sizes(sizes: Any) -> bool:
    pairs = isinstance(sizes, tuple) and len(sizes) > 0 and all(isinstance(pair, tuple) for pair in sizes)
    return pairs and all(len(pair) == 2 and all(is_whole(size, 1, MOST) for size in pair) for pair in sizes)
