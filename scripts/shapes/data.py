"""Rendering many scenes once into memory-mapped files, and drawing batches from them."""

from pathlib import Path

import numpy as np

from jaxphoton.measure.shapes.drawing import CLASSES, COLOURS
from jaxphoton.measure.shapes.scenes import TILINGS, Thing, make_scene
from jaxphoton.measure.shapes.tiling import CROP, target_size

from .crops import cut_tiles, shrink

MOST = 4
COUNTS = {(1, 1): 24000, (1, 2): 24000, (2, 1): 24000, (2, 2): 36000, (1, 3): 6000, (3, 1): 6000}


def tag(tiling: tuple[int, int]) -> str:
    """Return the file stem of a tiling."""
    return f"{tiling[0]}x{tiling[1]}"


def render(folder: Path, tiling: tuple[int, int], seed: int) -> None:
    """Render all training scenes of a tiling, unless they are there already."""
    count, stem = COUNTS[tiling], folder / tag(tiling)
    if stem.with_suffix(".npz").exists():
        return
    rng = np.random.default_rng([seed, *tiling])
    height, width = target_size(tiling)
    whole = np.lib.format.open_memmap(f"{stem}_whole.npy", "w+", np.uint8, (count, CROP, CROP, 3))
    tiles = np.lib.format.open_memmap(f"{stem}_tiles.npy", "w+", np.uint8, (count, height, width, 3))
    words = np.full((count, MOST, 2), -1, np.int8)
    boxes = np.zeros((count, MOST, 4), np.float32)
    for index in range(count):
        scene = make_scene(rng, tiling)
        whole[index], tiles[index], _ = shrink(scene.pixels)
        for slot, thing in enumerate(scene.things):
            words[index, slot] = CLASSES.index(thing.name), COLOURS.index(thing.colour)
            boxes[index, slot] = thing.box
    whole.flush()
    tiles.flush()
    # written last: its presence says that the other two are complete
    np.savez(stem.with_suffix(".npz"), words=words, boxes=boxes)


class Store:
    """The rendered scenes of one tiling."""

    def __init__(self, folder: Path, tiling: tuple[int, int]) -> None:
        stem = folder / tag(tiling)
        self.tiling = tiling
        self.whole = np.load(f"{stem}_whole.npy", mmap_mode="r")
        self.tiles = np.load(f"{stem}_tiles.npy", mmap_mode="r")
        with np.load(stem.with_suffix(".npz")) as meta:
            self.words, self.boxes = meta["words"], meta["boxes"]

    def draw(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, list[list[Thing]]]:
        """Draw scenes, half of them mirrored: global crops, tiles, things from left to right."""
        chosen = rng.integers(0, len(self.words), count)
        whole, tiles, things = self.whole[chosen], self.tiles[chosen], []
        for row, index in enumerate(chosen):
            mirrored = rng.random() < 0.5
            if mirrored:
                whole[row], tiles[row] = whole[row, :, ::-1], tiles[row, :, ::-1]
            things.append(self.things(index, mirrored))
        return whole, cut_tiles(tiles, self.tiling), things

    def things(self, index: int, mirrored: bool) -> list[Thing]:
        """Return the objects of a scene from left to right."""
        found = []
        for (name, colour), box in zip(self.words[index], self.boxes[index], strict=True):
            if name < 0:
                break
            x0, y0, x1, y1 = (float(value) for value in box)
            if mirrored:
                x0, x1 = 1.0 - x1, 1.0 - x0
            found.append(Thing(CLASSES[name], COLOURS[colour], (x0, y0, x1, y1)))
        return found[::-1] if mirrored else found


def render_all(folder: Path, seed: int) -> None:
    """Render every tiling, the simplest first (training starts with it)."""
    folder.mkdir(parents=True, exist_ok=True)
    for tiling in TILINGS:
        render(folder, tiling, seed)
