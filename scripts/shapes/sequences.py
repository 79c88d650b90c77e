"""Training sequences: prompts with their targets, many behind one image, packed into lanes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from jaxphoton.measure.shapes import texts
from jaxphoton.measure.shapes.scenes import Thing

from .tokenizer import COORD, EOS, SIZE, Words

LANES, LENGTH, PREFIX = 4, 48, 65
BINS = 256
TASKS = ("short", "normal", "count", "colour", "yes_no", "where", "detect", "point")
ANSWER_WEIGHT, DECISION_WEIGHT = 3.0, 1.5
FEEDBACK_NOISE = 0.8
# places kept for coordinate and size targets, per picture; the mean need is about 17 and 6
COORD_PLACES, SIZE_PLACES = 28, 11


@dataclass
class Prompted:
    """Inputs and targets of one prompt with its answer; the lists run in step."""

    task: int
    tokens: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    values: list[tuple[float, float]] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    coords: list[float] = field(default_factory=list)
    sizes: list[tuple[float, float]] = field(default_factory=list)

    def feed(self, token: int, kind: int = 0, value: tuple[float, float] = (0.0, 0.0)) -> None:
        """Append an input without a target."""
        self.tokens.append(token)
        self.kinds.append(kind)
        self.values.append(value)
        self.targets.append(-1)
        self.weights.append(0.0)
        self.coords.append(-1.0)
        self.sizes.append((-1.0, -1.0))

    def expect(self, token: int, weight: float) -> None:
        """Set the target token of the last input."""
        self.targets[-1], self.weights[-1] = token, weight


def text_sequence(task: str, prompt: Sequence[int], answer: Sequence[int], weight: float) -> Prompted:
    """Return a prompt answered in words."""
    sequence = Prompted(TASKS.index(task))
    for token in prompt:
        sequence.feed(token)
    for token in answer:
        sequence.expect(token, weight)
        sequence.feed(token)
    sequence.expect(EOS, weight)
    return sequence


def coord_bin(value: float) -> int:
    """Return the bin of a coordinate (value = bin / bins)."""
    return min(BINS - 1, max(0, round(value * BINS)))


def size_bin(value: float) -> float:
    """Return the (fractional) bin of a width or height."""
    return (np.log2(max(value, 2.0**-10)) + 10.0) / 10.0 * (BINS - 1)


def bin_size(index: float) -> float:
    """Return the size of a bin."""
    return float(2.0 ** (10.0 * index / (BINS - 1) - 10.0))


def find_sequence(skill: str, prompt: Sequence[int], things: Sequence[Thing], rng: np.random.Generator) -> Prompted:
    """Return a detect or point prompt; fed-back values are a little off, as at inference."""
    sequence = Prompted(TASKS.index(skill))
    for token in prompt:
        sequence.feed(token)
    for thing in things:
        x, y = thing.centre
        noise = rng.normal(0.0, FEEDBACK_NOISE, 4)
        sequence.expect(COORD, DECISION_WEIGHT)
        sequence.coords[-1] = x * BINS
        sequence.feed(COORD, 1, (coord_bin(x + noise[0] / BINS) / BINS, 0.0))
        sequence.coords[-1] = y * BINS
        sequence.feed(COORD, 1, (coord_bin(y + noise[1] / BINS) / BINS, 0.0))
        if skill == "detect":
            width, height = thing.box[2] - thing.box[0], thing.box[3] - thing.box[1]
            bins = size_bin(width), size_bin(height)
            sequence.sizes[-1] = bins
            fed = [bin_size(min(BINS - 1, round(b + n))) for b, n in zip(bins, noise[2:], strict=True)]
            sequence.feed(SIZE, 2, (fed[0], fed[1]))
    sequence.expect(EOS, DECISION_WEIGHT)
    return sequence


def caption_ids(words: Words, things: Sequence[Thing], length: str) -> list[int]:
    """Encode a caption word by word (equal to encoding it whole, and cached)."""
    pieces = texts.caption(things, length).split(" ")
    ids = list(words.encode(pieces[0]))
    for piece in pieces[1:]:
        ids += words.encode(f" {piece}")
    return ids


def draw_sequences(rng: np.random.Generator, words: Words, things: Sequence[Thing]) -> list[Prompted]:
    """Draw the prompts for one picture."""
    drawn = []
    for length in (texts.SHORT, texts.NORMAL):
        ids = caption_ids(words, things, length)
        drawn.append(text_sequence(length, words.caption_prompt(length), ids, 1.0))
    for skill, count in (("detect", 4), ("point", 2)):
        for _ in range(count):
            label = texts.draw_label(rng, things)
            found = texts.matching(things, label)
            drawn.append(find_sequence(skill, words.find_prompt(skill, label), found, rng))
    questions: list[tuple[str, tuple[str, str] | None]] = []
    questions += [("count", texts.count_question(rng, things)) for _ in range(2)]
    questions += [("yes_no", texts.yes_no_question(rng, things)) for _ in range(2)]
    questions.append(("colour", texts.colour_question(rng, things)))
    if rng.random() < 0.5:
        questions.append(("where", texts.where_question(rng, things)))
    for task, pair in questions:
        if pair is not None:
            ids = words.encode(pair[1])
            drawn.append(text_sequence(task, words.query_prompt(pair[0]), ids, ANSWER_WEIGHT))
    return drawn


class Batch:
    """Packed sequences as arrays [pictures, lanes, length]."""

    def __init__(self, pictures: int) -> None:
        shape = (pictures, LANES, LENGTH)
        self.tokens = np.zeros(shape, np.int64)
        self.kinds = np.zeros(shape, np.int64)
        self.values = np.zeros((*shape, 2), np.float32)
        self.positions = np.full(shape, PREFIX, np.int64)
        self.owner = np.full(shape, -1, np.int64)
        self.task = np.full(shape, -1, np.int64)
        self.targets = np.full(shape, -1, np.int64)
        self.weights = np.zeros(shape, np.float32)
        self.coords = np.full(shape, -1.0, np.float32)
        self.sizes = np.full((*shape, 2), -1.0, np.float32)
        self.coord_at = np.zeros(0, np.int64)
        self.size_at = np.zeros(0, np.int64)

    def pack(self, picture: int, sequences: list[Prompted]) -> None:
        """Put the sequences of a picture into its lanes, the longest first."""
        used = [0] * LANES
        number = 0
        for sequence in sorted(sequences, key=lambda s: -len(s.tokens)):
            length = len(sequence.tokens)
            lane = next((i for i in range(LANES) if used[i] + length <= LENGTH), None)
            if lane is None:
                continue
            self._put((picture, lane, slice(used[lane], used[lane] + length)), sequence, number)
            used[lane] += length
            number += 1

    def _put(self, where: tuple[int, int, slice], sequence: Prompted, number: int) -> None:
        for name in ("tokens", "kinds", "values", "targets", "weights", "coords", "sizes"):
            getattr(self, name)[where] = getattr(sequence, name)
        self.positions[where] = PREFIX + np.arange(len(sequence.tokens))
        self.owner[where] = number
        self.task[where] = sequence.task

    def gather(self) -> None:
        """Keep coordinate and size targets only where there are any: their decoders are costly."""
        self.coord_at, self.coords = gathered(self.coords, len(self.coords) * COORD_PLACES)
        self.size_at, self.sizes = gathered(self.sizes, len(self.sizes) * SIZE_PLACES)


def gathered(targets: np.ndarray, places: int) -> tuple[np.ndarray, np.ndarray]:
    """Return positions (in the flattened batch) and targets; unused places have target -1."""
    flat = targets.reshape(LANES * LENGTH * len(targets), -1)
    used = np.flatnonzero(flat[:, 0] >= 0)[:places]
    at, kept = np.zeros(places, np.int64), np.full((places, flat.shape[1]), -1.0, np.float32)
    at[: len(used)], kept[: len(used)] = used, flat[used]
    return at, kept


def make_batch(rng: np.random.Generator, words: Words, scenes: list[list[Thing]]) -> Batch:
    """Draw and pack the prompts of some pictures."""
    batch = Batch(len(scenes))
    for picture, things in enumerate(scenes):
        batch.pack(picture, draw_sequences(rng, words, things))
    batch.gather()
    return batch
