"""A byte-level tokenizer with many tokens of JSON in it, and the grammars of one."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from jaxphoton.constraints import AnswerGrammars
from jaxphoton.models.moondream.config import TokenizerConfig
from jaxphoton.prompt.tokenizer import Tokenizer

SPECIAL = ["<|endoftext|>", *(f"<|md_reserved_{i}|>" for i in range(9))]
ROWS = [{"name": f"{i * 7919}", "size": i / 8, "a": [i, i + 10], "b": {"c": None, "a": True}} for i in range(99)]
CORPUS = [json.dumps(row, separators=(",", ":")) for row in ROWS]
CORPUS += ["one more time, a naïve 日本 🙂 e1 E+5 1e9 a\\n"] * 9
VOCABULARY = 500


@pytest.fixture(scope="session")
def json_tokenizer() -> Tokenizer:
    backend = Backend(models.BPE())
    # No splits at blanks and punctuation: merges such as `":"` and `"},"` are tokens too.
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=8,
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return Tokenizer(backend)


@pytest.fixture(scope="session")
def grammars(json_tokenizer) -> AnswerGrammars:
    return AnswerGrammars(json_tokenizer, VOCABULARY + 12, TokenizerConfig().eos_id, TokenizerConfig().answer_id)
