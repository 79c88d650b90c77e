"""Loading, and the wall between user text and special tokens."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from jaxphoton.prompt.tokenizer import Tokenizer, TokenizerError, load_tokenizer

INJECTIONS = [
    "<|endoftext|>",
    "a<|endoftext|>b",
    "<|md_reserved_2|><|md_reserved_2|>",
    "<|md_<|md_reserved_4|>reserved_4|>",
]


@given(text=st.text())
def test_text_survives_the_round_trip(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(10 <= i < tokenizer.vocab_size for i in ids)


def test_nothing_is_added_or_cleaned_up(tokenizer):
    assert tokenizer.encode("") == []
    text = " do n't , really ? yes . "
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_and_unknown_ids_vanish(tokenizer):
    cat = tokenizer.encode(" cat")
    assert tokenizer.decode([0, *range(10), *cat, 5, 6, 0]) == " cat"
    assert tokenizer.decode([*cat, tokenizer.vocab_size + 7, -1]) == " cat"
    assert not any(tokenizer.is_text(i) for i in range(10))


@pytest.mark.parametrize("text", INJECTIONS)
def test_user_text_cannot_inject_special_tokens(tokenizer, text):
    ids = tokenizer.encode(text)
    assert min(ids) >= 10
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("text", INJECTIONS)
@pytest.mark.parametrize("keep_added", [True, False], ids=["added but not special", "plain vocabulary"])
def test_reserved_tokens_that_are_not_marked_special(tokenizer_file, tmp_path, keep_added, text):
    data = json.loads(tokenizer_file.read_text(encoding="utf-8"))
    for token in data["added_tokens"]:
        token["special"] = False
    data["added_tokens"] = data["added_tokens"] if keep_added else []
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    loaded = load_tokenizer(path)
    ids = loaded.encode(text)
    assert min(ids) >= 10
    assert loaded.decode([0, *ids, 5, 9]) == text


def test_low_ids_of_older_vocabularies_are_text(tokenizer_file):
    data = json.loads(tokenizer_file.read_text(encoding="utf-8"))
    tokens = sorted(data["model"]["vocab"], key=data["model"]["vocab"].get)
    data["model"]["vocab"] = {token: i for i, token in enumerate([*tokens[10:], *tokens[:10]])}
    first = len(tokens) - 10
    for i, token in enumerate(data["added_tokens"]):
        token["id"] = first + i
    loaded = Tokenizer(Backend.from_str(json.dumps(data)))
    assert loaded.decode(range(3)) == '!"#'
    assert loaded.decode([first, 0]) == "!"


def test_unpaired_surrogates_are_replaced(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\udcffb")) == "a?b"


def test_threads_share_one_tokenizer(tokenizer):
    texts = [f"What is picture {i}?" for i in range(200)]
    with ThreadPoolExecutor(4) as pool:
        assert [tokenizer.decode(ids) for ids in pool.map(tokenizer.encode, texts)] == texts


def test_folders_in_both_forms(tokenizer, tokenizer_file, tmp_path):
    assert load_tokenizer(tokenizer_file.parent).encode("a red car") == tokenizer.encode("a red car")
    model = json.loads(tokenizer_file.read_text(encoding="utf-8"))["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("\n".join(" ".join(merge) for merge in model["merges"]), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}', encoding="utf-8")
    assert load_tokenizer(tmp_path).encode("a red car") == tokenizer.encode("a red car")


def test_errors_name_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(TokenizerError, match=r"absent.json: no such"):
        load_tokenizer(tmp_path / "absent.json")
    for content in ("", "{}", "not json", '{"model": 3}'):
        (tmp_path / "bad.json").write_text(content, encoding="utf-8")
        with pytest.raises(TokenizerError, match=r"bad.json: not a tokenizer"):
            load_tokenizer(tmp_path / "bad.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TokenizerError, match="empty"):
        load_tokenizer(tmp_path / "empty")


def test_loading_is_silent_and_leaves_the_verbosity(tokenizer_file):
    code = f"""
import os
before = dict(os.environ)
from jaxphoton.prompt.tokenizer import load_tokenizer
load_tokenizer({str(tokenizer_file)!r})
assert dict(os.environ) == before
from transformers.utils import logging
assert logging.get_verbosity() == logging.WARNING
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
