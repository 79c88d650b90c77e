"""Scores of a model folder on fresh scenes: python -m shapes.evaluation FOLDER [--scenes N]."""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from jaxphoton.measure.shapes import texts
from jaxphoton.measure.shapes.drawing import CLASSES, COLOURS
from jaxphoton.measure.shapes.scenes import TILINGS, Scene, Thing, make_scene

from .crops import make_crops
from .data import tag
from .decoding import Decoder, find, speak
from .export import load

SEED = 90_001
Box = tuple[float, float, float, float]
Tally = dict[str, list[float]]


def overlap(a: Box, b: Box) -> float:
    """Return intersection over union."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def match(boxes: list[Box], things: list[Thing]) -> list[float]:
    """Match boxes to objects, the best overlap first; return the overlaps of at least .5."""
    pairs = sorted(
        ((overlap(b, t.box), i, j) for i, b in enumerate(boxes) for j, t in enumerate(things)),
        reverse=True,
    )
    used_boxes: set[int] = set()
    used_things: set[int] = set()
    kept = []
    for value, i, j in pairs:
        if value >= 0.5 and i not in used_boxes and j not in used_things:
            used_boxes.add(i)
            used_things.add(j)
            kept.append(value)
    return kept


def f1(tally: Tally, name: str, right: int, given: int, wanted: int) -> None:
    """Note the counts an F1 score is made of."""
    for part, value in (("right", right), ("given", given), ("wanted", wanted)):
        tally[f"{name}/{part}"].append(value)


class Examiner:
    """Asks a model about one picture after another."""

    def __init__(self, folder: Path) -> None:
        self.net, self.words = load(folder)
        self.tally: Tally = defaultdict(list)

    def examine(self, scene: Scene, rng: np.random.Generator) -> None:
        """Put all questions about a scene."""
        pixels, tiling = make_crops(scene.pixels)
        image = self.net.embed_image(torch.from_numpy(pixels), tiling)
        self.prefix = self.net.prefix(image)
        things = list(scene.things)
        for length in (texts.SHORT, texts.NORMAL):
            said = self.say(self.words.caption_prompt(length))
            self.tally[f"caption {length}"].append(said == texts.caption(things, length))
        self.questions(things, rng)
        for name in CLASSES:
            self.find_all(name, things, "X")
        self.find_all("object", things, "object")
        self.coloured(things, rng)

    def say(self, prompt: list[int]) -> str:
        """Return a text answer."""
        return self.words.decode(speak(Decoder(self.net, self.prefix), prompt).tokens)

    def questions(self, things: list[Thing], rng: np.random.Generator) -> None:
        """Count every class, ask for every class, and one colour and one place."""
        for name in CLASSES:
            number = len(texts.matching(things, name))
            form = texts.one_of(rng, texts.COUNT_FORMS)
            said = self.say(self.words.query_prompt(form.format(texts.PLURALS[name])))
            kind = "0" if not number else "1" if number == 1 else "2+"
            self.tally[f"count, answer {kind}"].append(said == str(number))
            said = self.say(self.words.query_prompt(texts.YES_NO_FORM.format(name)))
            kind = "present" if number else "absent"
            self.tally[f"is there, {kind}"].append(said == ("Yes" if number else "No"))
        pairs = ("colour", texts.colour_question), ("where", texts.where_question)
        for task, draw in pairs:
            pair = draw(rng, things)
            if pair:
                said = self.say(self.words.query_prompt(pair[0]))
                self.tally[task].append(said == pair[1])

    def find_all(self, label: str, things: list[Thing], kind: str) -> None:
        """Detect and point to a label."""
        wanted = texts.matching(things, label)
        results = {
            skill: find(Decoder(self.net, self.prefix), self.words.find_prompt(skill, label), skill).objects
            for skill in ("detect", "point")
        }
        if not wanted:
            for skill, objects in results.items():
                self.tally[f"{skill} {kind}, absent: none"].append(not objects)
            return
        boxes = [(b[0], b[1], b[2], b[3]) for b in results["detect"]]
        overlaps = match(boxes, wanted)
        self.tally["box overlap"] += overlaps
        f1(self.tally, f"detect {kind} F1", len(overlaps), len(boxes), len(wanted))
        marks = results["point"]
        hit = {i for i, t in enumerate(wanted) for p in marks if inside(p, t.box)}
        f1(self.tally, f"point {kind} F1", len(hit), len(marks), len(wanted))

    def coloured(self, things: list[Thing], rng: np.random.Generator) -> None:
        """Detect "colour X": present, wrong colour, and both words on different objects."""
        shown = things[int(rng.integers(len(things)))]
        self.find_all(f"{shown.colour} {shown.name}", things, "colour X")
        colours = texts.without(COLOURS, {t.colour for t in things})
        label = f"{texts.one_of(rng, colours)} {shown.name}"
        self.find_all(label, things, "other colour X")
        crossed = texts.crossed_labels(things)
        if crossed:
            self.find_all(texts.one_of(rng, crossed), things, "crossed colour X")

    def scores(self) -> dict[str, float]:
        """Return all means and F1 scores."""
        result = {}
        for name, values in sorted(self.tally.items()):
            if name.endswith("/right"):
                name = name.removesuffix("/right")
                given, wanted = (sum(self.tally[f"{name}/{p}"]) for p in ("given", "wanted"))
                result[name] = 2 * sum(values) / (given + wanted)
            elif "/" not in name:
                result[name] = float(np.mean(values))
        return result


def inside(point: list[float], box: Box) -> bool:
    """Tell whether a point lies in the inner 80 % of a box."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    width, height = box[2] - box[0], box[3] - box[1]
    return abs(point[0] - x) <= 0.4 * width and abs(point[1] - y) <= 0.4 * height


def main() -> None:
    """Print a table of scores by tiling."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=200)
    names = [tag(tiling) for tiling in TILINGS]
    parser.add_argument("--tilings", nargs="+", choices=names, default=names)
    parser.add_argument("--json", type=Path, help="write the scores here too")
    options = parser.parse_args()
    columns = {}
    with torch.inference_mode():
        for tiling in (tiling for tiling in TILINGS if tag(tiling) in options.tilings):
            examiner = Examiner(options.folder)
            rng = np.random.default_rng([SEED, *tiling])
            for _ in range(options.scenes):
                examiner.examine(make_scene(rng, tiling), rng)
            columns[tag(tiling)] = examiner.scores()
    print("| metric |", " | ".join(columns), "|\n|", "---|" * (len(columns) + 1))
    for name in sorted({name for scores in columns.values() for name in scores}):
        cells = [f"{scores[name]:.3f}" if name in scores else "-" for scores in columns.values()]
        print(f"| {name} | {' | '.join(cells)} |")
    if options.json:
        options.json.write_text(json.dumps(columns, indent=1) + "\n")


if __name__ == "__main__":
    main()
