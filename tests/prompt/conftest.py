"""A small byte-level tokenizer with the special tokens of the Moondream vocabularies."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from jaxphoton.prompt.tokenizer import Tokenizer, load_tokenizer

SPECIAL = ["<|endoftext|>", *(f"<|md_reserved_{i}|>" for i in range(9))]
CORPUS = [
    "A red car is parked in front of the house. What is in the picture?",
    "Describe the image in detail: two people, one dog and a small boat on the water.",
    "图片里有一只猫和两只狗。 写真には猫が写っています。 그림에는 고양이가 있습니다.",
    "Ein größeres Gebäude, très élégant; привет, мир! 🙂🙃🚗🚗🏳️‍🌈 naïve café",
] * 4


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory):
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    backend.save(str(path))
    return path


@pytest.fixture(scope="session")
def tokenizer(tokenizer_file) -> Tokenizer:
    return load_tokenizer(tokenizer_file)
