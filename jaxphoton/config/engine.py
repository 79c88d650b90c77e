"""Settings of the engine."""

from __future__ import annotations

from dataclasses import dataclass

from jaxphoton.config.fields import require

KV_DTYPES = ("model", "float8")
KERNELS = ("auto", "reference", "triton", "interpret")


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How the engine runs. Every combination of buckets is one compiled program.

    Attributes:
      max_rows: sequences decoded at once.
      depth: launches under way at once; 1 blocks on every step, 2 pipelines.
      page_size: positions a key/value page holds.
      kv_pages: pages of the pool; None sizes it for `max_rows` sequences of a whole context, or as many pages as fit.
      memory_fraction: share of the device's memory (of what its allocator can hand out) that the engine may fill.
      step_rows: batch sizes of the decode step.
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
      kv_dtype: of stored keys and values: "model" (that of the weights), or "float8" (e4m3: half the bytes of bfloat16,
        scaled by the checkpoint's factors where it has them).
    """

    max_rows: int = 32
    depth: int = 2
    page_size: int = 16
    kv_pages: int | None = None
    memory_fraction: float = 0.9
    step_rows: tuple[int, ...] = (2, 8, 32)
    prefill_rows: tuple[int, ...] = (1, 4)
    prefill_lengths: tuple[int, ...] = (32, 128)
    vision: tuple[tuple[int, int], ...] | None = None
    max_waiting: int = 1024
    image_workers: int | None = None
    image_timeout: float = 60.0
    host_masks: bool = True
    share_prefixes: bool = True
    fixed_shapes: bool = False
    kernels: str = "auto"
    kv_dtype: str = "model"

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

    def __post_init__(self):
        require(self.depth in (1, 2), "depth must be 1 (blocking) or 2 (pipelined)")
        require(self.max_rows >= 1, "max_rows must be at least 1")
        require(max(self.step_rows) >= self.max_rows, "the largest of step_rows must hold max_rows")
        require(min(self.step_rows) >= 2, "step_rows must be at least 2: a single row rounds differently")
        require(self.max_waiting >= 0, "max_waiting must be at least 0")
        require(self.page_size >= 1, "page_size must be at least 1")
        require(self.kv_pages is None or self.kv_pages >= 2, "kv_pages must be at least 2: page 0 is nobody's")
        require(self.image_timeout > 0, "image_timeout must be above 0")
        require(0 < self.memory_fraction <= 1, "memory_fraction must be above 0 and at most 1")
        require(self.kernels in KERNELS, f"kernels must be one of {', '.join(KERNELS)}")
        require(self.kv_dtype in KV_DTYPES, f"kv_dtype must be one of {', '.join(KV_DTYPES)}")
        for name in ("step_rows", "prefill_rows", "prefill_lengths"):
            buckets = getattr(self, name)
            require(min(buckets) >= 1 and list(buckets) == sorted(set(buckets)), f"{name} must be ascending")
