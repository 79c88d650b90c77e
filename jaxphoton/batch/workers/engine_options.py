"""What the user of a batch says about the engine, as changes to what it is by default."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from jaxphoton.config import EngineConfig
from jaxphoton.engine.memory import whole_pages
from jaxphoton.models.moondream.config import TextConfig


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Attributes:
    rows: sequences decoded at once.
    depth, image_workers, image_timeout, host_masks: as in `EngineConfig`.
    deterministic: an image's result does not depend on what runs beside it.
    """

    rows: int | None = None
    depth: int | None = None
    image_workers: int | None = None
    deterministic: bool = False
    image_timeout: float | None = None
    host_masks: bool | None = None

    def applied(self, engine: EngineConfig, text: TextConfig) -> EngineConfig:
        """The engine's settings with these changes; what is None stays."""
        names = ("depth", "image_workers", "image_timeout", "host_masks")
        changes: dict[str, Any] = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.rows is not None:
            kept = (rows for rows in engine.step_rows if rows < self.rows)
            changes |= {"max_rows": self.rows, "step_rows": (*kept, max(2, self.rows))}
        engine = dataclasses.replace(engine, **changes)
        if not self.deterministic:
            return engine
        # So many pages that no request is ever set back, and computed again in other company.
        return dataclasses.replace(engine, fixed_shapes=True, kv_pages=whole_pages(text, engine))
