"""Streaming: the pieces are the text, no piece holds half a character, the work per token is bounded."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

from jaxphoton.prompt.detokenizer import Detokenizer
from jaxphoton.prompt.tokenizer import Tokenizer

TEXT = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("猫図。🙂🚗🏳️‍🌈é \ufffd\n")))


def stream(tokenizer, ids) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    return [*(detokenizer.push(i) for i in ids), detokenizer.finish()]


def byte_ids(tokenizer, data: bytes) -> list[int]:
    """One token a byte."""
    # The byte-level alphabet: printable Latin-1 stands for itself, the rest is moved up from 256 on, in order.
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    moved = [byte for byte in range(256) if byte not in printable]
    letters = (chr(byte) if byte in printable else chr(256 + moved.index(byte)) for byte in data)
    return [tokenizer._backend.token_to_id(letter) for letter in letters]


@given(text=TEXT)
@example("🙂" * 40)
@example("\ufffd" * 60)
def test_pieces_of_text(tokenizer, text):
    pieces = stream(tokenizer, tokenizer.encode(text))
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert "\ufffd" not in "".join(pieces)


@given(ids=st.lists(st.integers(0, 620), max_size=120))
def test_pieces_of_any_ids(tokenizer, ids):
    assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids)


@given(data=st.lists(st.sampled_from(b"\x41\x80\x90\xbf\xc3\xe4\xb8\xad\xed\xf0\x9f\xf4\xff"), max_size=150))
@example([0x80] * 150)
@example([0xF0, 0x90, 0x80] * 50)
@example([0x80, 0xF0, 0x9F, 0x99] * 37)
def test_pieces_of_broken_bytes(tokenizer, data):
    ids = byte_ids(tokenizer, bytes(data))
    expected = bytes(data).decode("utf-8", "replace")
    assert tokenizer.decode(ids) == expected
    assert "".join(stream(tokenizer, ids)) == expected


@given(data=st.binary(max_size=100))
def test_little_is_held_back(tokenizer, data):
    detokenizer, sent = Detokenizer(tokenizer), ""
    for count, token in enumerate(ids := byte_ids(tokenizer, data), start=1):
        sent += detokenizer.push(token)
        now = tokenizer.decode(ids[:count])
        assert now.startswith(sent) and len(now) - len(sent) <= 3
        assert set(now[len(sent) :]) <= {"\ufffd"}


def test_plain_text_is_never_held_back(tokenizer):
    ids = tokenizer.encode("A red car is parked.")
    assert stream(tokenizer, ids) == [*(tokenizer.decode([i]) for i in ids), ""]


def test_special_ids_inside_a_character(tokenizer):
    first, *rest = byte_ids(tokenizer, "🙂".encode())
    assert stream(tokenizer, [first, 0, 5, *rest]) == ["", "", "", "", "", "🙂", ""]


def test_an_incomplete_end_comes_with_finish_and_the_next_text_starts_anew(tokenizer):
    detokenizer = Detokenizer(tokenizer)
    start, *rest = byte_ids(tokenizer, "é".encode())
    assert (detokenizer.push(start), detokenizer.finish()) == ("", "\ufffd")
    assert (detokenizer.push(rest[0]), detokenizer.finish(), detokenizer.finish()) == ("", "\ufffd", "")


@pytest.mark.parametrize("unit", ["a", "猫", "\ufffd", "🙂 "])
def test_work_per_token_is_bounded(tokenizer, unit):
    longest = 0

    class Counting:
        is_text = staticmethod(tokenizer.is_text)

        def decode(self, ids):
            nonlocal longest
            longest = max(longest, len(ids))
            return tokenizer.decode(ids)

    ids = byte_ids(tokenizer, (unit * 300).encode())
    assert "".join(stream(Counting(), ids)) == unit * 300
    assert longest <= 64


def test_tokenizers_that_mark_word_starts():
    words = ["▁Hello", "▁world", "▁a", "b", "!"]
    backend = Backend(models.WordLevel({word: i + 10 for i, word in enumerate(words)}, unk_token="b"))
    backend.decoder = decoders.Metaspace()
    tokenizer = Tokenizer(backend)
    ids = [10, 11, 12, 13, 14] * 20
    assert stream(tokenizer, ids[:5]) == ["Hello", " world", " a", "b", "!", ""]
    assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids)
