"""Scores of scenes, by a model that knows the truth and by one that errs."""

from __future__ import annotations

from typing import Any

import pytest

from jaxphoton.measure.shapes.scoring import draw_scene, evaluate, overlap, paired
from jaxphoton.measure.shapes.texts import PLURALS, matching, normal_caption

SCENES = 12


class Seer:
    """Answers from the scenes themselves; `blind` to the objects of one kind, for which it finds a corner."""

    def __init__(self, seed: int, blind: str = ""):
        self._blind = blind
        self._things = {draw_scene(seed, i)[0].pixels.tobytes(): draw_scene(seed, i)[0].things for i in range(SCENES)}

    def encode_image(self, pixels):
        return self._things[pixels.tobytes()]

    def caption(self, things, settings):
        return {"caption": f" {normal_caption(things)}\n"}

    def _boxes(self, things, label):
        found = matching(things, label)
        return [(0.0, 0.0, 0.01, 0.01)] * len(found) if label == self._blind else [thing.box for thing in found]

    def detect(self, things, label):
        names = ("x_min", "y_min", "x_max", "y_max")
        return {"objects": [dict(zip(names, box, strict=True)) for box in self._boxes(things, label)]}

    def point(self, things, label):
        return {"points": [{"x": (x + z) / 2, "y": (y + w) / 2} for x, y, z, w in self._boxes(things, label)]}

    def query(self, things, question, settings):
        name = next(name for name, plural in PLURALS.items() if f"many {plural} " in question)
        return {"answer": str(len(matching(things, name)))}


def seer(blind: str = "") -> Any:
    return Seer(3, blind)


def test_the_truth_scores_one_everywhere():
    assert set(evaluate(seer(), 3, SCENES).values()) == {1.0}


def test_what_is_missed_costs_boxes_and_points_alone():
    seen = evaluate(seer("star"), 3, SCENES)
    assert seen["detect_f1"] < 1 and seen["point_hit"] < 1
    assert seen["detect_f1"] == pytest.approx(seen["point_hit"])  # as many found as there are: no other denominator
    assert seen["caption_exact"] == seen["count_exact"] == seen["absent_clean"] == 1


def test_overlap_and_pairs():
    assert overlap((0, 0, 1, 1), (0, 0, 1, 1)) == 1
    assert overlap((0, 0, 2, 1), (1, 0, 3, 1)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 1, 1), (1, 0, 2, 1)) == 0
    scene, _ = draw_scene(0, 0)
    same = [scene.things[0]] * 2
    assert paired(["a", "b", "c"], same, lambda item, thing: True) == 2
