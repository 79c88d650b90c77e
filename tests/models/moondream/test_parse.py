"""From generated tokens to results."""

from __future__ import annotations

import pytest

from jaxphoton.models.moondream.prompts import Prompt
from jaxphoton.models.moondream.reading import named_config
from jaxphoton.models.moondream.skills.caption import Caption
from jaxphoton.models.moondream.skills.chat import Chat
from jaxphoton.models.moondream.skills.detect import Detect
from jaxphoton.models.moondream.skills.point import Point
from jaxphoton.models.moondream.skills.query import Query
from jaxphoton.requests.tokens import Generation, Token

PROMPT = Prompt(())
IDS = named_config("moondream2").tokenizer


def spell(ids) -> str:
    return "".join(f"<{i}>" for i in ids)


def text(*ids: int) -> tuple[Token, ...]:
    return tuple(Token(i) for i in ids)


def coordinate(value: float) -> Token:
    return Token(5, (0,), (value,))


def size(width: float, height: float) -> Token:
    return Token(6, (0, 0), (width, height))


def test_caption_leaves_the_stop_id_out_and_keeps_a_cut_off_text_whole():
    assert Caption(PROMPT).parse(Generation(text(20, 21, 0), "stop"), spell) == {"caption": "<20><21>"}
    assert Caption(PROMPT).parse(Generation(text(20, 21), "length"), spell) == {"caption": "<20><21>"}


def test_detect_boxes_reach_over_the_border_unless_clamped():
    generation = Generation((coordinate(0.1), coordinate(0.5), size(0.4, 0.2), Token(0)), "stop")
    box = Detect(PROMPT).parse(generation, spell)["objects"][0]
    assert box == pytest.approx({"x_min": -0.1, "y_min": 0.4, "x_max": 0.3, "y_max": 0.6})
    assert Detect(PROMPT, clamp=True).parse(generation, spell)["objects"][0]["x_min"] == 0.0


@pytest.mark.parametrize("cut", [3, 4, 5])
def test_an_object_that_was_cut_off_is_dropped(cut):
    tokens = (coordinate(0.1), coordinate(0.5), size(0.4, 0.2), coordinate(0.3), coordinate(0.3))
    generation = Generation(tokens[:cut], "length")
    assert len(Detect(PROMPT).parse(generation, spell)["objects"]) == 1


def test_points_come_in_pairs():
    generation = Generation((coordinate(0.1), coordinate(0.2), coordinate(0.3)), "length")
    assert Point(PROMPT).parse(generation, spell) == {"points": [{"x": 0.1, "y": 0.2}]}


def test_reasoning_spans_carry_their_points_and_offsets():
    tokens = (
        *text(30, 7),
        coordinate(0.1),
        coordinate(0.2),
        *text(31, 9, 32, 7, 33, 9),
        coordinate(0.4),
        *text(3, 40, 0),
    )
    result = Query(PROMPT, IDS, reasoning=True).parse(Generation(tokens, "stop"), spell)
    assert result["answer"] == "<40>"
    reasoning = result["reasoning"]
    assert reasoning["text"] == "<30><7><5><5><31><9><32><7><33><9><5>"
    (span,) = reasoning["grounding"]
    assert span["points"] == [(0.1, 0.2)]
    assert reasoning["text"][span["start_idx"] : span["end_idx"]] == "<7><5><5><31>"


def test_reasoning_that_never_ends_has_an_empty_answer():
    result = Query(PROMPT, IDS, reasoning=True).parse(Generation(text(30, 31), "length"), spell)
    assert result == {"reasoning": {"text": "<30><31>", "grounding": []}, "answer": ""}


def test_an_answer_id_at_the_very_end_leaves_an_empty_answer():
    result = Query(PROMPT, IDS, reasoning=True).parse(Generation(text(30, 3), "length"), spell)
    assert result == {"reasoning": {"text": "<30>", "grounding": []}, "answer": ""}


def test_the_next_message_of_a_conversation():
    chat = Chat(Query(PROMPT, IDS))
    said = chat.parse(Generation(text(40, 41, 0), "stop"), spell)
    assert said == {"message": {"role": "assistant", "content": "<40><41>"}, "finish_reason": "stop"}
    assert chat.parse(Generation(text(40), "length"), spell)["finish_reason"] == "length"
    chat = Chat(Query(PROMPT, IDS, reasoning=True))
    message = chat.parse(Generation(text(30, 3, 40, 0), "stop"), spell)["message"]
    assert message == {"role": "assistant", "content": "<40>", "reasoning": "<30>"}
    tokens = (*text(7), coordinate(0.1), coordinate(0.2), *text(9, 3, 40, 0))
    message = chat.parse(Generation(tokens, "stop"), spell)["message"]
    spans = [{"start_idx": 0, "end_idx": 9, "points": [(0.1, 0.2)]}]
    assert message["reasoning"] == "<7><5><5><9>" and message["reasoning_details"] == {"grounding": spans}
