"""The training loop: stages, rates, checkpoints, and averaging over processes."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from .auxiliary import AuxiliaryHead, cell_targets
from .data import Store
from .layers import Sizes
from .losses import Composition, embed_pictures, language_loss
from .muon import Muon
from .net import Shapes
from .progress import Report
from .sequences import make_batch
from .tokenizer import Words

MUON_RATE, ADAM_RATE, WARM_UP = 0.005, 1e-3, 60
SIGMAS = (4.0, 2.5, 1.5)
MIXED: Composition = (
    ((1, 1), 3),
    ((1, 2), 3),
    ((2, 1), 3),
    ((2, 2), 5),
    ((1, 3), 1),
    ((3, 1), 1),
)


@dataclass(frozen=True)
class Stage:
    """A part of the training: what a process sees in a step, and what is trained."""

    name: str
    images: int
    composition: Composition
    language: bool


def stages(images: int) -> tuple[Stage, ...]:
    """Return the stages; `images` is the number seen with language."""
    return (
        Stage("1a", 17600, (((1, 1), 8),), False),
        Stage("1b", 15000, MIXED, False),
        Stage("2", images, MIXED, True),
    )


def load_crops(
    stores: dict[tuple[int, int], Store], rng: np.random.Generator, composition: Composition
) -> tuple[np.ndarray, list]:
    """Draw the crops and objects of a batch."""
    wholes, tiles, scenes = [], [], []
    for tiling, count in composition:
        whole, local, things = stores[tiling].draw(rng, count)
        wholes.append(whole)
        tiles.append(local.reshape(-1, *local.shape[2:]))
        scenes += things
    return np.concatenate(wholes + tiles), scenes


class Trainer:
    """State of a run in one process."""

    def __init__(self, out: Path, cache: Path, images: int, minutes: float, seed: int) -> None:
        self.rank, self.processes = dist.get_rank(), dist.get_world_size()
        self.out, self.cache, self.seed, self.minutes = out, cache, seed, minutes
        torch.manual_seed(seed)
        self.words = Words.load(out / "tokenizer.json")
        self.net = Shapes(Sizes(vocab=self.words.size))
        self.head = AuxiliaryHead(self.words, self.net.text.wte.shape[1])
        self.stages = stages(images)
        self.language_images = images
        self.stage, self.seen, self.steps = 0, 0, 0
        self.elapsed = 0.0
        self.report = Report(out / "log.txt", self.rank)
        self.optimisers = self._optimisers()

    def _optimisers(self) -> list[torch.optim.Optimizer]:
        matrices, rest = [], list(self.head.parameters())
        for name, parameter in self.net.named_parameters():
            if "features" in name:
                parameter.requires_grad_(False)
            elif parameter.ndim == 2 and not name.startswith(("text.wte", "text.lm_head")):
                matrices.append(parameter)
            else:
                rest.append(parameter)
        adam = torch.optim.AdamW(rest, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0)
        return [Muon(matrices, lr=MUON_RATE), adam]

    def progress(self) -> float:
        """Return how much of the language part is done, by images or by time."""
        before = sum(stage.images for stage in self.stages[2 : self.stage])
        by_images = (before + self.seen) / self.language_images
        return 0.0 if self.stage < 2 else max(by_images, self.elapsed / (60 * self.minutes))

    def set_rates(self) -> None:
        """Warm up, stay constant, and fall linearly over the last 70 % of the language part."""
        factor = min(1.0, (self.steps + 1) / WARM_UP, max(0.0, (1.0 - self.progress()) / 0.7))
        for optimiser, rate in zip(self.optimisers, (MUON_RATE, ADAM_RATE), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor

    def run(self) -> None:
        """Train from the current stage to the end."""
        while self.stage < len(self.stages) and self.progress() < 1.0:
            self._run_stage(self.stages[self.stage])
            self.stage, self.seen = self.stage + 1, 0
            self.save()

    def _batches(self, stage: Stage) -> Iterator[dict[str, Tensor]]:
        stores = {tiling: Store(self.cache, tiling) for tiling, _ in stage.composition}
        rng = np.random.default_rng([self.seed, self.stage, self.seen, self.rank])

        def prepare() -> dict[str, Tensor]:
            crops, scenes = load_crops(stores, rng, stage.composition)
            arrays = {"crops": crops, **cell_targets(scenes)}
            if stage.language:
                batch = make_batch(rng, self.words, scenes)
                arrays |= vars(batch)
            return {name: torch.from_numpy(value) for name, value in arrays.items()}

        # one batch ahead: preparing it fills the waits of the gradient exchange
        with ThreadPoolExecutor(1) as pool:
            upcoming = pool.submit(prepare)
            while True:
                ready = upcoming.result()
                upcoming = pool.submit(prepare)
                yield ready

    def _loss_function(self, stage: Stage) -> Callable:
        net, head = self.net, self.head

        def loss(batch: dict[str, Tensor], sigma: Tensor, weight: Tensor):
            with torch.autocast("cpu", torch.bfloat16):
                image = embed_pictures(net, batch["crops"], stage.composition)
                total, accuracy = head(image, net.text.wte, batch)
                parts, best = torch.zeros(3), torch.zeros(1)
                if stage.language:
                    spoken, parts, best = language_loss(net, image, batch, sigma)
                    total = spoken + weight * total
            return total, torch.cat([accuracy, parts]), best

        return torch.compile(loss, dynamic=False)

    def _run_stage(self, stage: Stage) -> None:
        compute = self._loss_function(stage)
        size = sum(count for _, count in stage.composition) * self.processes
        saved = last = time.monotonic()
        for batch in self._batches(stage):
            progress = self.progress()
            if self.seen >= stage.images or progress >= 1.0:
                return
            self.set_rates()
            sigma = torch.tensor(SIGMAS[min(2, int(3.5 * progress))])
            weight = torch.tensor(0.5 if progress < 0.4 else 0.2)
            loss, numbers, best = compute(batch, sigma, weight)
            loss.backward()
            now = time.monotonic()
            self._average_and_step(now - last)
            last = now
            self.seen, self.steps = self.seen + size, self.steps + 1
            self.report.add(stage, self, numbers, batch, best)
            if now - saved > 120:
                self.save()
                saved = now

    def _average_and_step(self, seconds: float) -> None:
        """Average the gradients, and the time too: all processes must agree on the progress."""
        used = [p for o in self.optimisers for g in o.param_groups for p in g["params"]]
        used = [p for p in used if p.grad is not None]
        clock = torch.tensor([seconds])
        flat = torch.cat([clock, *(p.grad.flatten() for p in used)])
        if self.processes > 1:
            dist.all_reduce(flat)
            flat /= self.processes
        if self.stage >= 2:
            self.elapsed += float(flat[0])
        flat[1:] *= min(1.0, 1.0 / (float(flat[1:].norm()) + 1e-6))
        pieces = flat[1:].split([p.numel() for p in used])
        for parameter, piece in zip(used, pieces, strict=True):
            parameter.grad.copy_(piece.view_as(parameter))
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()

    def save(self) -> None:
        """Write a checkpoint (first process only)."""
        if self.rank:
            return
        state = {
            "net": self.net.state_dict(),
            "head": self.head.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "counts": (self.stage, self.seen, self.steps, self.elapsed),
        }
        torch.save(state, self.out / "checkpoint.tmp")
        (self.out / "checkpoint.tmp").replace(self.out / "checkpoint.pt")

    def load(self) -> None:
        """Continue from the checkpoint."""
        state = torch.load(self.out / "checkpoint.pt")
        self.net.load_state_dict(state["net"])
        self.head.load_state_dict(state["head"])
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.stage, self.seen, self.steps, self.elapsed = state["counts"]
