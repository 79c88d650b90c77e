"""How well a model finds and describes the objects of scenes that it has never seen; every score is from 0 to 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxphoton.measure.shapes.drawing import CLASSES
from jaxphoton.measure.shapes.scenes import Scene, Thing, make_scene
from jaxphoton.measure.shapes.texts import count_question, matching, normal_caption

if TYPE_CHECKING:
    from jaxphoton.api import Model

TILINGS = {(1, 1): 0.2, (1, 2): 0.2, (2, 1): 0.2, (2, 2): 0.4}
GREEDY = {"temperature": 0}
THREADS = 16  # scenes under way at a time
# Score -> what it counts hits and chances of.
SCORES = {
    "caption_exact": "caption",
    "detect_f1": "detect",
    "absent_clean": "absent",
    "point_hit": "point",
    "count_exact": "count",
}


def draw_scene(seed: int, index: int) -> tuple[Scene, np.random.Generator]:
    """Scene number `index` of a seed, and the generator to go on drawing questions with."""
    rng = np.random.default_rng([seed, index])
    tiling = list(TILINGS)[rng.choice(len(TILINGS), p=list(TILINGS.values()))]
    return make_scene(rng, tiling), rng


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes (x_min, y_min, x_max, y_max)."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


def paired(found: Sequence[Any], things: Sequence[Thing], fits: Callable[[Any, Thing], bool]) -> int:
    """How many of `found` fit a thing, each thing counted once."""
    left, hits = list(things), 0
    for item in found:
        match = next((thing for thing in left if fits(item, thing)), None)
        if match is not None:
            left.remove(match)
            hits += 1
    return hits


def is_inside(point: Mapping[str, float], thing: Thing) -> bool:
    return thing.box[0] <= point["x"] <= thing.box[2] and thing.box[1] <= point["y"] <= thing.box[3]


def score_scene(model: Model, seed: int, index: int) -> Counter:
    """Counts of one scene: hits and chances of every score."""
    scene, rng = draw_scene(seed, index)
    image, counts = model.encode_image(scene.pixels), Counter()
    caption = model.caption(image, settings=GREEDY)["caption"].strip()
    counts.update(caption_hits=caption == normal_caption(scene.things), caption_chances=1)
    names = sorted({thing.name for thing in scene.things})
    for name in names:
        boxes = [tuple(box.values()) for box in model.detect(image, name)["objects"]]
        truth = matching(scene.things, name)
        hits = paired(boxes, truth, lambda box, thing: overlap(box, thing.box) >= 0.5)
        counts.update(detect_hits=2 * hits, detect_chances=len(boxes) + len(truth))
        points = model.point(image, name)["points"]
        counts.update(point_hits=paired(points, truth, is_inside), point_chances=max(len(points), len(truth)))
    for name in rng.permutation([name for name in CLASSES if name not in names])[:2]:
        counts.update(absent_hits=not model.detect(image, str(name))["objects"], absent_chances=1)
    question, answer = count_question(rng, scene.things)
    counts.update(count_hits=model.query(image, question, settings=GREEDY)["answer"].strip() == answer, count_chances=1)
    return counts


def evaluate(model: Model, seed: int, scenes: int) -> dict[str, float]:
    """All scores over so many scenes of a seed: caption_exact (normal captions equal to the truth), detect_f1 (boxes at
    an overlap of 0.5, classes that are there), absent_clean (absent classes without a box), point_hit (points inside
    their objects, one each, over the larger of points and objects), count_exact (answers to "How many ...")."""
    with ThreadPoolExecutor(THREADS) as pool:
        total = sum(pool.map(lambda index: score_scene(model, seed, index), range(scenes)), Counter())
    return {name: total[f"{part}_hits"] / max(1, total[f"{part}_chances"]) for name, part in SCORES.items()}
