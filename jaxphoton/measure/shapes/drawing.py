"""The eight kinds of objects: filled polygons in the square [-1, 1] x [-1, 1], y downwards."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("house", "tree", "star", "heart", "fish", "car", "moon", "flower")
COLOURS = ("red", "green", "blue", "yellow", "purple", "pink")
COLOUR_RGB = {
    "red": (212, 44, 44),
    "green": (48, 158, 72),
    "blue": (48, 92, 212),
    "yellow": (240, 206, 48),
    "purple": (134, 62, 174),
    "pink": (246, 138, 188),
}
PALE, DARK, BROWN, WHITE = (226, 232, 236), (44, 40, 42), (110, 72, 40), (250, 250, 250)
SUPERSAMPLING = 3

Part = tuple[np.ndarray, tuple[int, int, int] | None]


def disc(x: float, y: float, rx: float, ry: float | None = None, steps: int = 24) -> np.ndarray:
    """Return an ellipse as a polygon."""
    angle = np.linspace(0.0, 2.0 * np.pi, steps, endpoint=False)
    return np.stack([x + rx * np.cos(angle), y + (ry or rx) * np.sin(angle)], 1)


def points(*pairs: tuple[float, float]) -> np.ndarray:
    """Return a polygon from its corners."""
    return np.array(pairs, dtype=np.float64)


def house() -> list[Part]:
    """Square body, wider roof, dark door."""
    return [
        (points((-0.72, -0.1), (0.72, -0.1), (0.72, 1.0), (-0.72, 1.0)), None),
        (points((-1.0, -0.08), (0.0, -1.0), (1.0, -0.08)), None),
        (points((-0.22, 0.35), (0.22, 0.35), (0.22, 1.0), (-0.22, 1.0)), DARK),
    ]


def tree() -> list[Part]:
    """Brown trunk under three overlapping discs."""
    return [
        (points((-0.16, 0.2), (0.16, 0.2), (0.2, 1.0), (-0.2, 1.0)), BROWN),
        (disc(-0.36, 0.0, 0.46), None),
        (disc(0.36, 0.0, 0.46), None),
        (disc(0.0, -0.46, 0.54), None),
    ]


def star() -> list[Part]:
    """Five points."""
    angle = -np.pi / 2 + np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return [(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1), None)]


def heart() -> list[Part]:
    """The usual parametric heart."""
    t = np.linspace(0.0, 2.0 * np.pi, 40, endpoint=False)
    x = 16.0 * np.sin(t) ** 3
    y = -(13.0 * np.cos(t) - 5.0 * np.cos(2 * t) - 2.0 * np.cos(3 * t) - np.cos(4 * t))
    return [(np.stack([x / 16.5, (y - 2.5) / 16.5], 1), None)]


def fish() -> list[Part]:
    """Ellipse, tail fin and white eye, swimming to the left."""
    return [
        (disc(-0.22, 0.0, 0.78, 0.5), None),
        (points((0.35, 0.0), (1.0, -0.5), (1.0, 0.5)), None),
        (disc(-0.58, -0.12, 0.13), WHITE),
    ]


def car() -> list[Part]:
    """Flat body, cabin with two pale windows, two dark wheels."""
    return [
        (points((-1.0, -0.05), (1.0, -0.05), (1.0, 0.4), (-1.0, 0.4)), None),
        (points((-0.62, -0.03), (-0.38, -0.55), (0.38, -0.55), (0.66, -0.03)), None),
        (points((-0.46, -0.08), (-0.3, -0.43), (-0.05, -0.43), (-0.05, -0.08)), PALE),
        (points((0.07, -0.08), (0.07, -0.43), (0.31, -0.43), (0.49, -0.08)), PALE),
        (disc(-0.52, 0.4, 0.25), DARK),
        (disc(0.52, 0.4, 0.25), DARK),
    ]


def moon() -> list[Part]:
    """Crescent open to the right."""
    outer = np.linspace(0.26 * np.pi, 1.74 * np.pi, 32)
    tip_x, tip_y = np.cos(outer[0]), np.sin(outer[0])
    centre = 0.42
    radius = float(np.hypot(tip_x - centre, tip_y))
    start = float(np.arctan2(tip_y, tip_x - centre))
    inner = np.linspace(2.0 * np.pi - start, start, 24)
    rim = np.stack([np.cos(outer), np.sin(outer)], 1)
    bite = np.stack([centre + radius * np.cos(inner), radius * np.sin(inner)], 1)
    return [(np.concatenate([rim, bite]) + np.array([0.2, 0.0]), None)]


def flower() -> list[Part]:
    """Five discs on a ring around a pale centre."""
    angle = -np.pi / 2 + np.arange(5) * 2 * np.pi / 5
    petals: list[Part] = [(disc(0.6 * np.cos(a), 0.6 * np.sin(a), 0.4), None) for a in angle]
    return [*petals, (disc(0.0, 0.0, 0.3), PALE)]


BUILDERS: dict[str, Callable[[], list[Part]]] = {
    "house": house,
    "tree": tree,
    "star": star,
    "heart": heart,
    "fish": fish,
    "car": car,
    "moon": moon,
    "flower": flower,
}
PARTS: dict[str, list[Part]] = {name: build() for name, build in BUILDERS.items()}


def placed_parts(name: str, matrix: np.ndarray) -> list[Part]:
    """Return the parts of an object under a 2 x 2 matrix, around the origin."""
    return [(polygon @ matrix.T, fill) for polygon, fill in PARTS[name]]


def extent(parts: list[Part]) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper corner of the box around the parts."""
    corners = np.concatenate([polygon for polygon, _ in parts])
    return corners.min(0), corners.max(0)


def paint(background: np.ndarray, objects: list[tuple[list[Part], tuple[int, int, int]]]) -> np.ndarray:
    """Draw the objects (parts in picture pixels and their colour) over a uint8 RGB background."""
    height, width = background.shape[:2]
    scale = SUPERSAMPLING
    image = Image.fromarray(background).resize((width * scale, height * scale), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image)
    for parts, colour in objects:
        for polygon, fill in parts:
            # Pillow fills the pixels whose centre lies at whole numbers, hence the half pixel
            corners = polygon * scale - 0.5
            draw.polygon(corners.ravel().tolist(), fill=fill or colour)
    return np.asarray(image.reduce(scale))
