"""Loading, and the wall between user text and special tokens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from jaxphoton.files import MAX_TOKENIZER_BYTES
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


@given(text=st.text())
def test_the_bytes_of_ids_make_up_the_text(tokenizer, text):
    assert b"".join(map(tokenizer.bytes_of, tokenizer.encode(text))) == text.encode()


def test_special_and_unknown_ids_have_no_bytes(tokenizer):
    assert not any(map(tokenizer.bytes_of, [*range(10), tokenizer.vocab_size + 7, -1]))


def test_nothing_is_added_or_cleaned_up(tokenizer):
    assert tokenizer.encode("") == []
    text = " do n't , really ? yes . "
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=st.text())
def test_only_what_cannot_fit_is_refused_unread(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.encode(text, most=max(1, len(ids))) == ids


def test_a_text_that_is_certain_to_be_too_long_is_not_encoded(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "_backend", None)
    with pytest.raises(ValueError, match="1,000,000 characters leaves no room for an answer"):
        tokenizer.encode("cat " * 250_000, most=2048)


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


def _other_form(tokenizer_file, folder) -> None:
    """The tokenizer as older releases of transformers wrote it."""
    model = json.loads(tokenizer_file.read_text(encoding="utf-8"))["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(" ".join(merge) for merge in model["merges"]), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}', encoding="utf-8")


def test_folders_in_both_forms(tokenizer, tokenizer_file, tmp_path):
    assert load_tokenizer(tokenizer_file.parent).encode("a red car") == tokenizer.encode("a red car")
    _other_form(tokenizer_file, tmp_path)
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


def test_loading_is_silent_and_leaves_the_verbosity(tokenizer_file, tmp_path):
    _other_form(tokenizer_file, tmp_path)
    code = f"""
import os, sys
before = dict(os.environ)
from jaxphoton.prompt.tokenizer import load_tokenizer
load_tokenizer({str(tokenizer_file)!r})
assert "transformers" not in sys.modules, "a tokenizer.json needs none of it"
load_tokenizer({str(tmp_path)!r})
assert dict(os.environ) == before
from transformers.utils import logging
assert logging.get_verbosity() == logging.WARNING
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def _changed(tokenizer_file, tmp_path, change) -> Path:
    data = json.loads(tokenizer_file.read_text(encoding="utf-8"))
    change(data)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_tokens_beyond_the_vocabulary_of_the_model(tokenizer, tokenizer_file, tmp_path):
    last = tokenizer.vocab_size - 1
    assert load_tokenizer(tokenizer_file, tokenizer.vocab_size).last_id == last
    with pytest.raises(TokenizerError, match=f"its token {last} is beyond the model's vocabulary of {last}"):
        load_tokenizer(tokenizer_file, last)
    token = {"id": 0, "content": "<far>", "special": True, "lstrip": False, "rstrip": False}
    token |= {"single_word": False, "normalized": False}
    path = _changed(tokenizer_file, tmp_path, lambda data: data["added_tokens"].append(token | {"id": last + 1}))
    with pytest.raises(TokenizerError, match="beyond the model's vocabulary"):
        load_tokenizer(path, last + 1)
    path = _changed(tokenizer_file, tmp_path, lambda data: data["model"]["vocab"].update({"zz": 2**31}))
    with pytest.raises(TokenizerError, match="its token 2147483648 is beyond"):
        load_tokenizer(path, 51200)


def test_a_tokenizer_without_text(tokenizer_file, tmp_path):
    def empty(data):
        data["model"]["vocab"], data["model"]["merges"] = {}, []

    with pytest.raises(TokenizerError, match="without tokens of text"):
        load_tokenizer(_changed(tokenizer_file, tmp_path, empty))


VALUES = st.sampled_from([None, True, -1, 2**40, 1.5, "x" * 10**5, "\x1b[31m", [], {}, [["a", "b"]], {"type": "BPE"}])


def _places(value, path=()):
    """The paths of all values in JSON, of long objects and lists the first few."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in list(inner)[:12]:
        yield from _places(one, (*path, key))


@given(data=st.data())
def test_any_change_of_a_file_loads_or_is_refused(tokenizer_file, tmp_path_factory, data):
    content = json.loads(tokenizer_file.read_text(encoding="utf-8"))
    places = [p for p in _places(content) if p and "prefix" not in str(p)]  # a prefix of words: see the test below
    *where, last = data.draw(st.sampled_from(places))
    at = content
    for key in where:
        at = at[key]
    at[last] = data.draw(VALUES)
    path = tmp_path_factory.mktemp("changed") / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    try:
        loaded = load_tokenizer(path, 51200)
    except TokenizerError as error:
        assert str(path) in str(error) and len(str(error)) < 1000 + len(str(path))
        assert str(error).isprintable()
    else:
        loaded.decode(loaded.encode("What is <|endoftext|> here?"))


def test_a_panic_of_the_library_is_a_fault_of_the_file(tokenizer_file, monkeypatch):
    class PanicException(BaseException):
        """As the library's own, which is no Exception."""

    def fail(self, text):
        raise PanicException("range end index 7 out of range\nfor a slice")

    monkeypatch.setattr(Tokenizer, "encode", fail)
    with pytest.raises(TokenizerError, match=r"cannot be loaded|can be loaded: range end index 7 out of range$"):
        load_tokenizer(tokenizer_file)


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "merges.txt"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "large"])
def test_only_regular_files_of_bounded_size_are_opened(tokenizer_file, tmp_path, name, kind):
    _other_form(tokenizer_file, tmp_path)
    file = tmp_path / name
    file.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(file)  # opening one to read waits for a writer
    elif kind == "folder":
        file.mkdir()
    else:
        with open(file, "wb") as sparse:
            sparse.truncate(MAX_TOKENIZER_BYTES + 1)
    with pytest.raises(TokenizerError, match="a named pipe|a folder|larger than|too many"):
        load_tokenizer(tmp_path)
    with pytest.raises(TokenizerError, match="a named pipe|a folder|larger than|too many|not a tokenizer"):
        load_tokenizer(file)


def test_a_link_is_followed_and_a_byte_order_mark_does_no_harm(tokenizer, tokenizer_file, tmp_path):
    (tmp_path / "blob").write_bytes(b"\xef\xbb\xbf" + tokenizer_file.read_bytes())
    (tmp_path / "tokenizer.json").symlink_to("blob")
    assert load_tokenizer(tmp_path).encode("a red car") == tokenizer.encode("a red car")
