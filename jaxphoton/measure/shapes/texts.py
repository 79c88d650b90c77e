"""What is said about a scene: captions, questions with answers, and labels to find."""

from collections.abc import Sequence

import numpy as np

from jaxphoton.measure.shapes.drawing import CLASSES, COLOURS
from jaxphoton.measure.shapes.scenes import Thing

NUMBERS = ("Zero", "One", "Two", "Three", "Four")
# no colour begins with a vowel: "an" would make the article depend on the word after it
PLURALS = {name: "fish" if name == "fish" else f"{name}s" for name in (*CLASSES, "object")}
COUNT_FORMS = ("How many {} are there?", "How many {} are in the image?")
COLOUR_FORMS = ("What color is the {}?", "What colour is the {}?")
YES_NO_FORM = "Is there a {}?"
WHERE_FORM = "Where is the {}?"
SHORT, NORMAL = "short", "normal"


def region(thing: Thing) -> tuple[int, int]:
    """Return row and column of the centre in a 3 x 3 division of the picture."""
    x, y = thing.centre
    return min(2, int(3 * y)), min(2, int(3 * x))


def region_words(thing: Thing) -> str:
    """Return where the object is, such as "top right", "left" or "center"."""
    row, column = region(thing)
    words = (("top", "", "bottom")[row], ("left", "", "right")[column])
    return " ".join(word for word in words if word) or "center"


def enumerate_phrases(phrases: Sequence[str]) -> str:
    """Join phrases with commas and a final "and"."""
    if len(phrases) == 1:
        return phrases[0]
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def counted(number: int) -> str:
    """Return "one object", "two objects" and so on."""
    return f"{NUMBERS[number].lower()} object{'s' if number > 1 else ''}"


def short_caption(things: Sequence[Thing]) -> str:
    """Return the number of objects and the objects from left to right."""
    listed = enumerate_phrases([f"a {thing.colour} {thing.name}" for thing in things])
    return f"{counted(len(things)).capitalize()}: {listed}."


def normal_caption(things: Sequence[Thing]) -> str:
    """Return the number of objects and, in reading order, the objects with their places."""
    ordered = sorted(things, key=lambda thing: (*region(thing), thing.centre[0]))
    phrases = [f"a {t.colour} {t.name} at the {region_words(t)}" for t in ordered]
    return f"The image shows {counted(len(things))}: {enumerate_phrases(phrases)}."


def caption(things: Sequence[Thing], length: str) -> str:
    """Return the caption of a length."""
    return short_caption(things) if length == SHORT else normal_caption(things)


def matching(things: Sequence[Thing], label: str) -> list[Thing]:
    """Return the objects that a label ("fish", "red fish" or "object") names."""
    *colour, name = label.split()
    return [thing for thing in things if name in ("object", thing.name) and (not colour or colour[0] == thing.colour)]


def one_of(rng: np.random.Generator, items: Sequence[str]) -> str:
    """Draw one of some words."""
    return items[int(rng.integers(len(items)))]


def without(items: Sequence[str], used: set[str]) -> list[str]:
    """Return the words that are not used."""
    return [item for item in items if item not in used]


def crossed_labels(things: Sequence[Thing]) -> list[str]:
    """Return the "colour class" labels whose two words are there, but on different objects."""
    pairs = {(thing.colour, thing.name) for thing in things}
    return [f"{a.colour} {b.name}" for a in things for b in things if a is not b and (a.colour, b.name) not in pairs]


def draw_label(rng: np.random.Generator, things: Sequence[Thing]) -> str:
    """Draw a label to find: present, absent, or hard (both words there on different objects)."""
    names = {thing.name for thing in things}
    colours = {thing.colour for thing in things}
    shown = things[int(rng.integers(len(things)))]
    kind = rng.random()
    if kind < 0.40:
        return shown.name
    if kind < 0.62:
        return one_of(rng, without(CLASSES, names))
    if kind < 0.67:
        return "object"
    if kind < 0.83:
        return f"{shown.colour} {shown.name}"
    if kind < 0.91 and (crossed := crossed_labels(things)):
        return one_of(rng, crossed)
    if rng.random() < 0.5:
        return f"{one_of(rng, without(COLOURS, colours))} {shown.name}"
    colour = shown.colour if rng.random() < 0.5 else one_of(rng, COLOURS)
    return f"{colour} {one_of(rng, without(CLASSES, names))}"


def count_question(rng: np.random.Generator, things: Sequence[Thing]) -> tuple[str, str]:
    """Draw a question for a number, with the answer."""
    kind = rng.random()
    names = {thing.name for thing in things}
    repeated = sorted({t.name for t in things if len(matching(things, t.name)) > 1})
    if kind < 0.12:
        name = "object"
    elif kind < 0.24:
        name = one_of(rng, without(CLASSES, names))
    elif kind < 0.6 and repeated:
        name = one_of(rng, repeated)
    else:
        name = things[int(rng.integers(len(things)))].name
    answer = str(len(matching(things, name)))
    return one_of(rng, COUNT_FORMS).format(PLURALS[name]), answer


def colour_question(rng: np.random.Generator, things: Sequence[Thing]) -> tuple[str, str] | None:
    """Draw a question for the colour of a class that has one colour only."""
    clear = [t for t in things if len({o.colour for o in matching(things, t.name)}) == 1]
    if not clear:
        return None
    thing = clear[int(rng.integers(len(clear)))]
    return one_of(rng, COLOUR_FORMS).format(thing.name), thing.colour


def yes_no_question(rng: np.random.Generator, things: Sequence[Thing]) -> tuple[str, str]:
    """Draw a question whether a class is there."""
    if rng.random() < 0.5:
        return YES_NO_FORM.format(things[int(rng.integers(len(things)))].name), "Yes"
    return YES_NO_FORM.format(one_of(rng, without(CLASSES, {t.name for t in things}))), "No"


def where_question(rng: np.random.Generator, things: Sequence[Thing]) -> tuple[str, str] | None:
    """Draw a question for the place of a class that is there once."""
    single = [thing for thing in things if len(matching(things, thing.name)) == 1]
    if not single:
        return None
    thing = single[int(rng.integers(len(single)))]
    return WHERE_FORM.format(thing.name), region_words(thing)
