"""Memory of a model and a load before anything is loaded: what it needs, what fits a device, the smallest device."""

from __future__ import annotations

import bisect
import os
from collections.abc import Callable, Mapping, Sequence

from jaxphoton.config import EngineConfig
from jaxphoton.config.mesh import MeshError, mesh_shape
from jaxphoton.config.quantization import QUANTIZATIONS
from jaxphoton.engine.buckets import Key, estimate, make_buckets
from jaxphoton.engine.memory import (
    DeviceMemoryError,
    MemoryPlan,
    adapter_bytes,
    human,
    kv_position_bytes,
    request_pages,
    row_state_bytes,
    size_pool,
)
from jaxphoton.measure.chips import CHIPS, Chip
from jaxphoton.measure.cost_model import item_bytes, weight_bytes
from jaxphoton.models.protocol import Family

ESTIMATED = "estimated"
MOST_ROWS = 4096
MESHES = ("model=1", "model=2", "model=4", "model=8")
MEMORIES = (8, 12, 16, 24, 48, 80, 141)  # GB of GPUs that people have

Scratch = Callable[[EngineConfig], Mapping[Key, int]]


class Planner:
    """Plans for one model in one dtype, its keys and values in `kv_dtype` (as in EngineConfig), matrices in few bits as
    `quantize` says (as in `jaxphoton.config.quantization`). Adapters have the slots that the engine's settings say.

    `scratch` gives the bytes of an engine's programs and `source` says where it has them from; by default both are
    estimates. With a `mesh` (the sizes of its axes, as of `config.mesh.mesh_shape`) all bytes are those of one of its
    devices.

    Raises:
      MeshError: the mesh does not divide the model, with the sizes that would.
    """

    def __init__(
        self,
        family: Family,
        dtype: str,
        scratch: Scratch | None = None,
        source: str = ESTIMATED,
        kv_dtype: str = "model",
        quantize: str | None = None,
        mesh: Mapping[str, int] | None = None,
    ):
        self.family, self.source, self._dtype = family, source, dtype
        self._item = item_bytes(dtype)
        self._kv_item = 1 if kv_dtype == "float8" else self._item
        self._split, self._ways = None, 1
        if mesh is None:
            self._weights = weight_bytes(family, dtype, quantize)
        else:
            from jaxphoton.measure.mesh import (
                planned_split,
                share_bytes,
            )  # what plans for one device starts without jax

            self._split = planned_split(family, mesh)
            self._ways = self._split.ways("kv_heads")
            self._weights = share_bytes(family, dtype, quantize, self._split)
        self._scratch = scratch or self.estimates

    def estimates(self, engine: EngineConfig) -> dict[Key, int]:
        keys = make_buckets(engine, self.family).keys(engine)
        return {key: estimate(key, self.family, engine, self._item, self._ways) for key in keys}

    def load(self, engine: EngineConfig, context: int) -> MemoryPlan:
        """What `engine.max_rows` requests of `context` positions need, an image prefix in each."""
        return self._load(engine, context, self._scratch(engine))

    def fit(self, engine: EngineConfig, memory: int) -> MemoryPlan:
        """The plan that an engine comes to on a device of `memory` bytes.

        Raises:
          DeviceMemoryError: not one request fits.
        """
        limit, weights = int(memory * client_fraction()), self._weights_of(engine)
        scratch, used = self._scratch(engine), sum(weights.values())
        return size_pool(self.family, engine, self._kv_item, weights, scratch, self.source, limit, used, self._ways)

    def most_rows(self, memory: int, context: int, engine: EngineConfig | None = None) -> int:
        """The most requests of `context` positions at once on a device of `memory` bytes, by the estimates; `engine`
        has the settings besides.

        Raises:
          DeviceMemoryError: not one fits.
        """
        usable = usable_bytes(memory, EngineConfig())

        def total(rows: int) -> int:
            sized = (engine or EngineConfig()).with_rows(rows)
            return self._load(sized, context, self.estimates(sized)).total_bytes

        rows = bisect.bisect_left(range(1, MOST_ROWS + 1), True, key=lambda rows: total(rows) > usable)
        if rows == 0:
            need = f"one request of {context} positions needs {human(total(1))}"
            raise DeviceMemoryError(f"{need}; of {human(memory)} {human(usable)} are usable")
        return rows

    def smallest(self, plan: MemoryPlan) -> Chip | None:
        """The smallest GPU of the table that holds a plan; None if none does."""
        return next((c for c in CHIPS if c.memory and plan.total_bytes <= usable_bytes(c.memory, EngineConfig())), None)

    def requests(self, plan: MemoryPlan, engine: EngineConfig, contexts: Sequence[int]) -> dict[int, int]:
        """Requests with an image that run at once, by their positions; more of them wait."""
        return {n: min(plan.max_rows, (plan.pages - 1) // self.pages_of(engine, n)) for n in contexts}

    def pages_of(self, engine: EngineConfig, positions: int) -> int:
        return request_pages(self.family, engine.page_size, positions)

    @property
    def position_bytes(self) -> int:
        """Keys and values of one position; on a mesh a device's share."""
        return kv_position_bytes(self.family.cache, self._kv_item) // self._ways

    def _load(self, engine: EngineConfig, context: int, scratch: Mapping[Key, int]) -> MemoryPlan:
        pages, page = 1 + engine.max_rows * self.pages_of(engine, context), engine.page_size * self.position_bytes
        rows = row_state_bytes(self.family, engine.max_rows)
        return MemoryPlan(self._weights_of(engine), engine.max_rows, pages, page, scratch, self.source, rows)

    def _weights_of(self, engine: EngineConfig) -> dict[str, int]:
        """With the room for adapters."""
        if not engine.adapter_slots:
            return self._weights
        import jax  # what plans without adapters starts without it

        pool = self.family.network.adapters(self._dtype, engine.adapter_slots, engine.adapter_rank)
        room = pool if self._split is None else self._split.shapes(pool)
        return {**self._weights, "adapters": adapter_bytes(jax.tree.leaves(room))}


def rows_that_fit(
    planners: Mapping[str, Planner | None], context: int, engine: EngineConfig
) -> dict[int, dict[str, int]]:
    """Of each size of `MEMORIES`, the most requests of `context` positions at once by each planner, by its estimates; 0
    where not one fits, or there is no planner."""
    found: dict[int, dict[str, int]] = {gigabytes: {} for gigabytes in MEMORIES}
    for name, planner in planners.items():
        for gigabytes, rows in found.items():
            try:
                rows[name] = planner.most_rows(gigabytes * 10**9, context, engine) if planner else 0
            except DeviceMemoryError:
                rows[name] = 0
    return found


def planners_by_form(
    family: Family, dtype: str, kv_dtype: str, mesh: Mapping[str, int] | None = None
) -> dict[str, Planner | None]:
    """By the form of the weights (the dtype itself is the plain one); None for one that the mesh cannot share."""
    names = {dtype: None} | {name: name for name in QUANTIZATIONS}
    return {name: _planner(family, dtype, kv_dtype, quantize, mesh) for name, quantize in names.items()}


def planners_by_devices(
    family: Family, dtype: str, kv_dtype: str, quantize: str | None = None
) -> dict[str, Planner | None]:
    """By how many devices share the model, as `MESHES` has them; None where they cannot."""
    return {text: _planner(family, dtype, kv_dtype, quantize, mesh_shape(text)) for text in MESHES}


def _planner(
    family: Family, dtype: str, kv_dtype: str, quantize: str | None, mesh: Mapping[str, int] | None
) -> Planner | None:
    try:
        return Planner(family, dtype, kv_dtype=kv_dtype, quantize=quantize, mesh=mesh)
    except MeshError:
        return None


def client_fraction() -> float:
    """The share of a GPU's memory that jax takes: 0.75, unless XLA_CLIENT_MEM_FRACTION (or its older name) is set.

    Raises:
      ValueError: the variable holds no number above 0.
    """
    for name in ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"):
        if text := os.environ.get(name):
            try:
                fraction = float(text)
            except ValueError:
                fraction = 0.0
            if not 0 < fraction:
                raise ValueError(f"{name}={text} is not a number above 0")
            return fraction
    return 0.75


def usable_bytes(memory: int, engine: EngineConfig) -> int:
    """What of a device's memory the engine fills; the rest is the runtime's: the CUDA context, libraries, fragments."""
    return int(int(memory * client_fraction()) * engine.memory_fraction)
