"""The tokenizer: byte-level BPE over the words of the texts, one token a word."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from jaxphoton.measure.shapes import texts
from jaxphoton.measure.shapes.drawing import CLASSES, COLOURS

SPECIAL = ("<|endoftext|>", *(f"<|md_reserved_{index}|>" for index in range(9)))
BOS = EOS = 0
SKILL_OPEN, SKILL_CLOSE, ANSWER, THINKING = 1, 2, 3, 4
COORD, SIZE, GROUND_START, GROUND_END = 5, 6, 7, 9
SKILLS = ("describe", "short", "normal", "long", "query", "detect", "point")
PLACES = ("top", "bottom", "left", "right", "center")


def corpus() -> list[str]:
    """Return texts that hold every word in every position it can take."""
    words = [*CLASSES, *COLOURS, *texts.PLURALS.values(), *PLACES, *SKILLS, "object", "and"]
    words += [number.lower() for number in texts.NUMBERS]
    lines = [f" {word}" for word in words]
    lines += [*COLOURS, *PLACES, *texts.NUMBERS, "Yes", "No", *"01234"]
    lines += [form.format("car") for form in (*texts.COUNT_FORMS, *texts.COLOUR_FORMS)]
    lines += [texts.YES_NO_FORM.format("car"), texts.WHERE_FORM.format("car")]
    lines += ["The image shows one object: a red car at the top, a car and a star."]
    return sorted(set(lines))


def train_tokenizer() -> Tokenizer:
    """Merge until every word of the texts is one token; all 256 bytes stay covered."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        min_frequency=1,
        show_progress=False,
        special_tokens=[tokenizers.AddedToken(name, special=True) for name in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    assert [tokenizer.token_to_id(name) for name in SPECIAL] == list(range(10))
    return tokenizer


class Words:
    """A tokenizer together with the prompt templates over its ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.size: int = tokenizer.get_vocab_size()
        self.encode = lru_cache(maxsize=None)(self._encode)
        self.describe, self.short, self.normal, _, self.query, self.detect, self.point = (
            self.single(word) for word in SKILLS
        )

    @classmethod
    def load(cls, path: Path) -> "Words":
        """Read tokenizer.json."""
        return cls(Tokenizer.from_file(str(path)))

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def single(self, word: str) -> int:
        """Return the id of a word with its leading space."""
        (index,) = self.encode(f" {word}")
        return index

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids."""
        return self.tokenizer.decode(ids)

    def caption_prompt(self, length: str) -> list[int]:
        """Return the ids after the image for a caption."""
        word = self.short if length == texts.SHORT else self.normal
        return [SKILL_OPEN, self.describe, SKILL_CLOSE, word, ANSWER]

    def query_prompt(self, question: str) -> list[int]:
        """Return the ids after the image for a question."""
        return [SKILL_OPEN, self.query, SKILL_CLOSE, *self.encode(question), ANSWER, ANSWER]

    def find_prompt(self, skill: str, label: str) -> list[int]:
        """Return the ids after the image for detect or point."""
        word = self.detect if skill == "detect" else self.point
        return [SKILL_OPEN, word, SKILL_CLOSE, *self.encode(f" {label}"), ANSWER]

    def config(self) -> dict[str, Any]:
        """Return the tokenizer part of config.json."""
        return {
            "bos_id": BOS,
            "eos_id": EOS,
            "answer_id": ANSWER,
            "thinking_id": THINKING,
            "coord_id": COORD,
            "size_id": SIZE,
            "start_ground_points_id": GROUND_START,
            "end_ground_id": GROUND_END,
            "templates": self.templates(),
        }

    def templates(self) -> dict[str, Any]:
        """Return the prompt templates; no long captions were trained, so "long" asks for normal."""
        find = {name: [SKILL_OPEN, self.single(name), SKILL_CLOSE] for name in ("detect", "point")}
        return {
            "caption": {
                "short": self.caption_prompt(texts.SHORT),
                "normal": self.caption_prompt(texts.NORMAL),
                "long": self.caption_prompt(texts.NORMAL),
            },
            "query": {
                "prefix": [SKILL_OPEN, self.query, SKILL_CLOSE],
                "suffix": [ANSWER],
                "answer_prefix": [ANSWER, ANSWER],
                "reasoning_prefix": [ANSWER, THINKING],
                "post_reasoning_prefix": [ANSWER],
                "reasoning_suppressed_token_ids": [EOS, SIZE],
                "answer_suppressed_token_ids": [ANSWER],
            },
            **{name: {"prefix": ids, "suffix": [ANSWER]} for name, ids in find.items()},
        }
