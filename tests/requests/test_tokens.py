"""Texts without white space at their ends: what is streamed is the whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.models.answers import ChatAnswer, TextAnswer
from jaxphoton.requests.tokens import Generation, Prompt, TextReader, Token

PIECES = [" ", "\n", "a", " b", "c ", "\t \n", "é"]


class Pieces:
    def decode(self, ids):
        return "".join(PIECES[i] for i in ids)

    def is_text(self, index):
        return index < len(PIECES)


@given(ids=st.lists(st.integers(0, len(PIECES) - 1), max_size=30), stopped=st.booleans())
def test_the_pieces_of_a_stripped_text_are_the_stripped_text(ids, stopped):
    tokens = [*map(Token, ids), *([Token(len(PIECES))] if stopped else [])]
    finish = "stop" if stopped else "length"
    generation, decoder = Generation(tuple(tokens), finish), Pieces()
    answer = TextAnswer(Prompt(()), "caption")
    reader = answer.reader(decoder)
    assert reader is not None
    events = [event for i, t in enumerate(tokens) for event in reader.push(t, finish if i == len(tokens) - 1 else None)]
    events += reader.finish()
    text = decoder.decode(ids).strip()
    assert "".join(event["chunk"] for event in events) == text and all(event["chunk"] for event in events)
    assert answer.parse(generation, decoder.decode) == {"caption": text}
    chat = ChatAnswer(Prompt(())).parse(generation, decoder.decode)
    assert chat == {"message": {"role": "assistant", "content": text}, "finish_reason": finish}


def test_other_texts_keep_what_they_begin_and_end_with():
    reader = TextReader(Pieces())
    assert [*reader.push(Token(0), None), *reader.push(Token(4), "length"), *reader.finish()] == [
        {"chunk": " "},
        {"chunk": "c "},
    ]
