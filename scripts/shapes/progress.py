"""One log line now and then: losses, accuracies by task, and speed."""

import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from .sequences import TASKS

if TYPE_CHECKING:
    from .training import Stage, Trainer

EVERY = 50
NUMBERS = ("cell_class", "cell_colour", "cell_box", "token_loss", "coord_loss", "size_loss")


class Report:
    """Collects numbers of training batches (new to the model for the most part)."""

    def __init__(self, path: Path, rank: int) -> None:
        self.path, self.rank = path, rank
        self.values: dict[str, list[float]] = defaultdict(list)
        self.started = time.monotonic()

    def add(self, stage: "Stage", run: "Trainer", numbers: Tensor, batch: dict[str, Tensor], best: Any) -> None:
        """Note a step; write a line every so often."""
        if self.rank:
            return
        for name, value in zip(NUMBERS, numbers.tolist(), strict=True):
            if stage.language or not name.endswith("loss"):
                self.values[name].append(value)
        if stage.language and run.steps % 5 == 0:
            self.note_answers(batch, best.numpy())
        if run.steps % EVERY == 0:
            self.write(stage, run)

    def note_answers(self, batch: dict[str, Tensor], best: np.ndarray) -> None:
        """Note which answers are right as a whole (teacher forcing)."""
        targets = batch["targets"].numpy()
        wrong = (best.reshape(targets.shape) != targets) & (targets >= 0)
        owner, task = batch["owner"].numpy(), batch["task"].numpy()
        for picture in range(len(owner)):
            for number in range(owner[picture].max() + 1):
                mine = owner[picture] == number
                name = TASKS[task[picture][mine][0]]
                self.values[name].append(float(not wrong[picture][mine].any()))

    def write(self, stage: "Stage", run: "Trainer") -> None:
        """Write the means since the last line."""
        now = time.monotonic()
        means = " ".join(f"{name} {np.mean(value):.3f}" for name, value in self.values.items())
        pace = (now - self.started) / EVERY
        line = (
            f"{time.strftime('%H:%M:%S')} stage {stage.name} images {run.seen} "
            f"progress {run.progress():.3f} s/step {pace:.3f} {means}\n"
        )
        with self.path.open("a") as file:
            file.write(line)
        self.values.clear()
        self.started = now
