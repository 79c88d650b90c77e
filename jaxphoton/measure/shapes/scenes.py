"""Random scenes: objects, picture and exact boxes."""

from dataclasses import dataclass

import numpy as np

from jaxphoton.measure.shapes.drawing import CLASSES, COLOUR_RGB, COLOURS, Part, extent, paint, placed_parts
from jaxphoton.measure.shapes.tiling import select_tiling, target_size

TILINGS = ((1, 1), (1, 2), (2, 1), (2, 2), (1, 3), (3, 1))
GREYS = (78, 112, 146, 178, 208, 236)
GAP = 3.0


@dataclass(frozen=True)
class Thing:
    """One object: class and colour word, and box (x_min, y_min, x_max, y_max) in picture units."""

    name: str
    colour: str
    box: tuple[float, float, float, float]

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of the box."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True)
class Scene:
    """A picture (uint8 RGB) and its objects from left to right."""

    pixels: np.ndarray
    things: tuple[Thing, ...]


def picture_size(rng: np.random.Generator, tiling: tuple[int, int]) -> tuple[int, int]:
    """Draw a height and width that the tiling rule maps to the tiling."""
    rows, columns = tiling
    if rows > columns:
        height, width = picture_size(rng, (columns, rows))
        return width, height
    while True:
        if tiling == (1, 1):
            side = int(rng.integers(54, 65))
            other = int(round(side * np.exp(rng.normal(0.0, 0.12))))
            size = (side, other) if rng.random() < 0.5 else (other, side)
        elif tiling == (2, 2):
            side = int(rng.choice([int(rng.integers(84, 113)), 112, int(rng.integers(113, 240))]))
            size = (side, int(round(side * np.exp(rng.normal(0.0, 0.06)))))
        else:
            aspect = rng.uniform(1.2, 1.9) if columns == 2 else rng.uniform(2.2, 2.9)
            high = int(rng.integers(66, 150 if columns == 2 else 100))
            size = (high, int(round(high * aspect)))
        if select_tiling(*size) == tiling and min(size) >= 44:
            return size


def draw_words(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """Draw (class, colour) pairs with many repeats, so that words have to be told apart."""
    words: list[tuple[str, str]] = []
    for _ in range(count):
        name, colour = str(rng.choice(CLASSES)), str(rng.choice(COLOURS))
        if words and rng.random() < 0.45:
            name, old = words[rng.integers(len(words))]
            if rng.random() < 0.6:
                colour = old
        elif words and rng.random() < 0.25:
            colour = words[rng.integers(len(words))][1]
        words.append((name, colour))
    return words


def random_parts(rng: np.random.Generator, name: str, longest: float, scale: np.ndarray, stretch: float) -> list[Part]:
    """Return an object in picture pixels whose longest side after the resize is `longest`."""
    angle = rng.uniform(-0.2, 0.2)
    cos, sin = np.cos(angle), np.sin(angle)
    flip = np.array([1.0 if rng.random() < 0.5 else -1.0, 1.0])
    matrix = np.array([[cos, -sin], [sin, cos]]) * flip
    matrix = np.array([[stretch], [1.0 / stretch]]) * matrix
    lower, upper = extent(placed_parts(name, matrix))
    matrix = matrix * (longest / ((upper - lower) * scale).max())
    return placed_parts(name, matrix)


def near_third(position: np.ndarray) -> bool:
    """Tell whether a centre lies so near a third of the picture that its region is unclear."""
    return bool((np.abs(position[:, None] - np.array([1 / 3, 2 / 3])) < 0.025).any())


def place(
    rng: np.random.Generator,
    parts: list[Part],
    target: np.ndarray,
    scale: np.ndarray,
    taken: list[np.ndarray],
) -> tuple[list[Part], np.ndarray] | None:
    """Find a free position; return the moved parts and the box in resized pixels."""
    lower, upper = extent(parts)
    size = (upper - lower) * scale
    for _ in range(25):
        corner = 1.0 + rng.random(2) * (target - size - 2.0)
        if near_third((corner + size / 2) / target):
            continue
        box = np.concatenate([corner, corner + size])
        if all((box[:2] > other[2:] + GAP).any() or (other[:2] > box[2:] + GAP).any() for other in taken):
            return [(polygon - lower + corner / scale, fill) for polygon, fill in parts], box
    return None


def background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a grey background with a slight tint, gradient and noise."""
    grey = rng.choice(GREYS) + rng.uniform(-12, 12) + rng.normal(0.0, 4.0, 3)
    slope = rng.uniform(-14, 14, 2)
    ramp = slope[0] * np.linspace(-1, 1, height)[:, None] + slope[1] * np.linspace(-1, 1, width)
    image = grey + ramp[..., None] + rng.normal(0.0, rng.uniform(0.5, 3.0), (height, width, 1))
    return np.clip(image, 0, 255).astype(np.uint8)


def shade(rng: np.random.Generator, colour: str) -> tuple[int, int, int]:
    """Vary a colour a little."""
    rgb = np.array(COLOUR_RGB[colour]) + rng.uniform(-12, 12, 3)
    values = np.clip(rgb * rng.uniform(0.87, 1.05), 0, 255).astype(int)
    return int(values[0]), int(values[1]), int(values[2])


def make_scene(
    rng: np.random.Generator,
    tiling: tuple[int, int],
    size: tuple[int, int] | None = None,
    count: int | None = None,
) -> Scene:
    """Draw a scene for a tiling; `size` (height, width) and the number of objects may be fixed."""
    height, width = size or picture_size(rng, tiling)
    target = np.array(target_size(tiling)[::-1], dtype=np.float64)
    scale = target / np.array([width, height])
    low, high = (20.0, 44.0) if tiling == (2, 2) else (18.0, 34.0)
    most = 3 if tiling == (1, 1) else 4
    while True:
        wanted = count or int(rng.integers(1, most + 1))
        stretch = np.exp(rng.uniform(-0.08, 0.08))
        taken: list[np.ndarray] = []
        layers, things = [], []
        for name, colour in draw_words(rng, wanted):
            parts = random_parts(rng, name, rng.uniform(low, high), scale, stretch)
            found = place(rng, parts, target, scale, taken)
            if found is None:
                break
            taken.append(found[1])
            layers.append((found[0], shade(rng, colour)))
            box = (found[1].reshape(2, 2) / target).ravel().tolist()
            things.append(Thing(name, colour, (box[0], box[1], box[2], box[3])))
        if len(things) == wanted:
            break
    pixels = paint(background(rng, height, width), layers)
    return Scene(pixels, tuple(sorted(things, key=lambda thing: thing.centre[0])))
