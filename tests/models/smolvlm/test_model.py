"""The recorded model as users have it: from its folder, asked in words, answered by the engine as by the original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxphoton import Model
from jaxphoton.config import EngineConfig

DESCRIBE = "Can you describe this image?"
ENGINE = EngineConfig(
    max_rows=2, step_rows=(2,), prefill_rows=(1,), prefill_lengths=(64,), vision=((1, 10),), host_masks=False
)


@pytest.fixture(scope="module")
def model(folder):
    with Model.from_pretrained(str(folder), engine=ENGINE, resize="exact") as model:
        model.family.prefix_lengths = (128,)  # of one program
        yield model


@pytest.fixture
def pictures(photos):
    return [Image.fromarray(photo) for photo in photos]


@pytest.fixture
def said(recorded, model):
    """The recorded text of a case, and the settings that ask for it."""

    def said(case):
        ids = recorded[f"{case}.tokens"].tolist()
        return model.tokenizer.decode(ids).strip(), {"max_tokens": len(ids), "temperature": 0}

    return said


def user(*content):
    parts = [{"type": "text", "text": c} if isinstance(c, str) else {"type": "image", "image": c} for c in content]
    return {"role": "user", "content": parts}


def told(role, text):
    return {"role": role, "content": text}


def test_captions_and_answers_are_those_of_the_reference(model, pictures, said):
    for case, ask in {
        "decode": lambda **how: model.caption(pictures[1], **how)["caption"],
        "image0": lambda **how: model.caption(pictures[0], **how)["caption"],
        "image2": lambda **how: model.query(pictures[2], DESCRIBE, **how)["answer"],
        "text_only": lambda **how: model.query(None, "Describe this photo of a cat on a table", **how)["answer"],
    }.items():
        text, settings = said(case)
        assert ask(settings=settings) == text, case


def test_a_text_ends_where_the_reference_ends_it(model, pictures, said):
    text, _ = said("stop")
    assert "".join(model.query(pictures[2], "What is it?", stream=True)["answer"]) == text
    assert model.query(pictures[2], "What is it?")["answer"] == text


def test_conversations_are_those_of_the_reference(model, pictures, said):
    text, settings = said("two_turn")
    turns = [
        told("system", "Answer briefly."),
        user(pictures[2], DESCRIBE),
        told("assistant", "A cat and a cup on the table."),
        told("user", "What is the colour of the cup?"),
    ]
    assert model.chat(turns, settings=settings)["message"]["content"] == text


def test_a_conversation_is_about_several_pictures_and_sees_which_is_which(model, pictures):
    how = {"max_tokens": 8, "temperature": 0}

    def answer(*content):
        return model.chat([user(*content)], settings=how)["message"]["content"]

    first, second = answer(pictures[0], " and ", pictures[1]), answer(pictures[1], " and ", pictures[0])
    assert first != second
    assert answer(pictures[0], " and ", pictures[1]) == first
    plain = [Image.new("RGB", (50, 40), colour) for colour in ("red", "green")]
    assert answer("Look: ", plain[0]) != answer("Look: ", plain[1])
    with pytest.raises(ValueError, match="the model's context holds 512"):
        answer(*[pictures[0]] * 8)


def test_the_same_weights_come_from_a_converted_folder(model, folder, tmp_path, monkeypatch):
    from jaxphoton.cli.main import main
    from jaxphoton.weights.load import load_model

    assert main(["convert", str(folder), str(tmp_path / "own"), "--dtype", "float32"]) == 0
    family, params = load_model(tmp_path / "own", "float32")
    assert family.config == model.config
    np.testing.assert_array_equal(params.vision.proj_w.matrix, model.params.vision.proj_w.matrix)
    np.testing.assert_array_equal(params.text.layers[2].down_w.matrix, model.params.text.layers[2].down_w.matrix)


def test_the_listing_of_its_document(model, pictures, tmp_path, monkeypatch):
    text = (Path(__file__).parents[3] / "docs" / "smolvlm.md").read_text(encoding="utf-8")
    listing = text.split("```python\n", 1)[1].split("```", 1)[0]
    pictures[0].save(tmp_path / "cat.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Model, "from_pretrained", lambda name: model)
    exec(compile(listing, "smolvlm.md", "exec"), {})
