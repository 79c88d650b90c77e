"""Answers that end at a text, and tokens that are told: piece by piece as on the whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton import Ask
from jaxphoton.requests.answer import Output, OutputThread
from jaxphoton.requests.reading import AnswerReader, Reading
from jaxphoton.requests.tokens import Token

S = 60
PICTURE = Path(__file__).parents[2] / "examples" / "shapes" / "scene_01.png"
GREEDY = {"temperature": 0.0}
LETTERS = "ab"


class Pieces:
    """A reader and a tokenizer: the id is the number of a piece, of which the last two letters may be held back."""

    def __init__(self, pieces, held=""):
        self.pieces, self.held = pieces, held

    def push(self, token, finish):
        piece = self.pieces[token.id]
        return [{"chunk": piece}] if piece else []

    def finish(self):
        return [{"chunk": self.held}] if self.held else []

    def bytes_of(self, token_id):
        return self.pieces[token_id].encode()


def read(reader: AnswerReader, tokens: int) -> list[list]:
    """The events of each token, and of the end."""
    events = [list(reader.push(Token(i, logprob=-float(i)), None)) for i in range(tokens)]
    return [*events, list(reader.finish())]


texts = st.text(LETTERS, max_size=4)
some_stops = st.lists(st.text(LETTERS, min_size=1, max_size=4), min_size=1, max_size=4)


@given(pieces=st.lists(texts, max_size=12), held=texts, stops=some_stops, logprobs=st.booleans())
def test_pieces_are_the_text_up_to_the_first_stop(pieces, held, stops, logprobs):
    reading = Reading(tuple(stops), logprobs)
    whole = Pieces(pieces, held)
    reader = AnswerReader(whole, reading, whole)
    events = read(reader, len(pieces))
    # An answer ends with the first token behind which a stop text is complete.
    prefixes = ["".join(pieces[: count + 1]) for count in range(len(pieces))] + ["".join(pieces) + held]
    ends = [any(stop in prefix for stop in stops) for prefix in prefixes]
    end = ends.index(True) if any(ends) else len(pieces)
    assert reader.stopped == any(ends) and reader.count == min(end + 1, len(pieces))
    assert "".join(event["chunk"] for each in events for event in each) == reading.cut(prefixes[end])
    # Whatever was handed out stays: what may begin a stop text was held back.
    handed, answer = "", reading.cut(prefixes[end])
    for count, each in enumerate(events):
        handed += "".join(event["chunk"] for event in each)
        assert answer.startswith(handed)
        if count < end:
            rest = prefixes[count][len(handed) :]
            assert prefixes[count].startswith(handed) and (not rest or any(stop.startswith(rest) for stop in stops))
    told = [token for each in events for event in each for token in event.get("logprobs", ())]
    assert told == reader.told and [-token["logprob"] for token in told] == list(range(reader.count if logprobs else 0))


def test_tokens_of_a_reasoning_and_the_stop_id_are_not_told():
    class Thinking(Pieces):
        def push(self, token, finish):
            return [{"reasoning": {}}] if token.id == 1 else super().push(token, finish) if token.id == 2 else []

    pieces = Thinking(["Hm.", "", "A cat", ""])
    reader = AnswerReader(pieces, Reading(logprobs=True), pieces)
    for number in range(4):
        reader.push(Token(number), "stop" if number == 3 else None)
    assert [token["token"] for token in reader.told] == ["A cat"]


@pytest.fixture(scope="module")
def caption(shapes):
    return shapes.caption(PICTURE, settings=GREEDY)


def test_an_answer_ends_in_front_of_a_stop_text(shapes, caption):
    text = caption["caption"]
    stop = text[len(text) // 2 :][:5]
    for stops in (stop, [stop], ["never written", stop]):
        result = shapes.caption(PICTURE, settings=GREEDY | {"stop": stops})
        assert result["caption"] == text[: text.index(stop)] and result.finish_reason == "stop"
        # The tokens are those up to the end, however far the engine had got.
        assert result.tokens == caption.tokens[: len(result.tokens)]
        written = shapes.tokenizer.decode(result.tokens)
        assert stop in written and stop not in shapes.tokenizer.decode(result.tokens[:-1])


def test_a_stream_and_a_batch_end_there_too(shapes, caption):
    text = caption["caption"]
    stop = text[len(text) // 2 :][:5]
    stream = shapes.caption(PICTURE, settings=GREEDY | {"stop": stop}, stream=True)
    assert "".join(stream["caption"]) == text[: text.index(stop)] and stream.finish_reason == "stop"
    (item,) = shapes.caption_batch([PICTURE], settings=GREEDY | {"stop": stop})
    assert item.result["caption"] == text[: text.index(stop)] and item.result.tokens == stream.tokens


def test_an_answer_without_a_stop_text_in_it_is_whole(shapes, caption):
    result = shapes.caption(PICTURE, settings=GREEDY | {"stop": ["never written"]})
    assert result == caption and result.tokens == caption.tokens


def test_a_conversation_ends_in_front_of_a_stop_text(shapes):
    content = [{"type": "image", "image": PICTURE}, {"type": "text", "text": "What is in the picture?"}]
    messages = [{"role": "user", "content": content}]
    text = shapes.chat(messages, settings=GREEDY)["message"]["content"]
    result = shapes.chat(messages, settings=GREEDY | {"stop": text[1:]})
    assert result["message"] == {"role": "assistant", "content": text[: text.index(text[1:])]}
    assert result["finish_reason"] == result.finish_reason == "stop"


def test_tokens_are_told_with_their_logprobs(shapes, caption):
    events, settings = [], GREEDY | {"logprobs": True}
    result = shapes.submit(PICTURE, Ask("caption", {}, settings), events.append).future.result(S)
    assert result == caption and not caption.logprobs
    assert b"".join(bytes(token["bytes"]) for token in result.logprobs).decode() == result["caption"]
    assert len(result.logprobs) == len(result.tokens) - 1  # without the stop id
    assert sum(token["logprob"] for token in result.logprobs) >= result.logprob
    assert [token for event in events for token in event["logprobs"]] == list(result.logprobs)


def test_whoever_brings_tokens_is_told_when_there_are_enough(shapes, caption):
    """So that the engine ends the request, and its row is free."""
    prepared = shapes.session.preparer.prepare(Ask("caption", {}, {"stop": "image"}))

    class Here(OutputThread):
        def __init__(self):
            self.put = lambda work: work()

    output = Output(prepared, 0, shapes.tokenizer, Here(), None)
    assert output.heard is not None
    enough = [output.heard(Token(each), None) for each in caption.tokens]
    texts = [shapes.tokenizer.decode(caption.tokens[: count + 1]) for count in range(len(enough))]
    assert enough == ["image" in text for text in texts] and {*enough} == {True, False}


@pytest.mark.parametrize(
    "stop, error", [("", ValueError), (["a"] * 5, ValueError), ([7], TypeError), (7, TypeError), ([["a"]], TypeError)]
)
def test_what_is_no_stop_text_is_refused(shapes, stop, error):
    with pytest.raises(error, match="setting stop must be a text or a list of up to 4 texts"):
        shapes.caption(PICTURE, settings={"stop": stop})


def test_a_skill_that_writes_no_text_has_no_such_settings(shapes):
    with pytest.raises(ValueError, match="unknown settings stop"):
        shapes.detect(PICTURE, "object", settings={"stop": "a"})
    with pytest.raises(TypeError, match="logprobs must be true or false"):
        shapes.caption(PICTURE, settings={"logprobs": 3})
