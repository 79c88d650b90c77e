"""Types, lengths and extra options are what the model knows, and what users write is put in as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.models.joycaption.captions import EXTRAS, LENGTHS, TYPES, request

PLACE = re.compile(r"\{(\w+)\}")


def test_there_are_all_types_with_three_requests_each_and_all_extra_options():
    assert (len(TYPES), len(EXTRAS)) == (12, 27)
    for kind in TYPES.values():
        assert [PLACE.findall(text) for text in (kind.plain, kind.counted, kind.sized)] == [
            [],
            ["word_count"],
            ["length"],
        ]
    assert {key: PLACE.findall(text) for key, text in EXTRAS.items() if "{" in text} == {"name": ["name"]}
    sentences = [text for kind in TYPES.values() for text in (kind.plain, kind.counted, kind.sized)]
    sentences += EXTRAS.values()
    assert len(set(sentences)) == 12 * 3 + 27
    assert all(re.fullmatch(r"[A-Z][^ ]*( [^ ]+)*\.", text) for text in sentences), "single blanks, and a full stop"


@pytest.mark.smoke
def test_the_page_for_users_has_all_of_them():
    page = (Path(__file__).parents[3] / "docs" / "joycaption.md").read_text(encoding="utf-8")
    rows = {row.split("|")[1].strip(" `"): row for row in page.splitlines() if row.startswith("| `")}
    assert list(rows) == [*TYPES, *EXTRAS]
    for key, kind in TYPES.items():
        assert rows[key] == f"| `{key}` | {kind.name} | {kind.plain} |"
    assert all(rows[key] == f"| `{key}` | {sentence} |" for key, sentence in EXTRAS.items() if key not in TYPES)
    assert all(f"`{length}`" in page for length in LENGTHS)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "Write a medium-length detailed description for this image."),
        ({"length": "any"}, "Write a detailed description for this image."),
        ({"length": "very-long"}, "Write a very long detailed description for this image."),
        ({"length": "40"}, "Write a detailed description for this image in 40 words or less."),
        ({"length": 1000}, "Write a detailed description for this image in 1000 words or less."),
        (
            {"length": 20, "type": "descriptive-casual"},
            "Write a descriptive caption for this image in a casual tone within 20 words.",
        ),
        ({"length": "short", "type": "MidJourney"}, "Write a short MidJourney prompt for this image."),
        (
            {"length": 30, "type": "product-listing", "extra": ["pg"]},
            "Write a caption for this image as though it were a product listing. Keep it under 30 words. Do NOT "
            "include anything sexual; keep it PG.",
        ),
    ],
)
def test_length_and_type_make_the_request(asked, said):
    assert request(**asked) == said


@pytest.mark.parametrize("key", TYPES)
def test_a_type_has_a_name_too(key):
    assert request(type=TYPES[key].name) == request(type=key) == request(type=key.upper())


def test_options_are_said_in_their_order_and_once():
    said = request("any", extra=("no-text", "lighting", "no-text"))
    assert said == f"Write a detailed description for this image. {EXTRAS['no-text']} {EXTRAS['lighting']}"
    assert request(extra="lighting") == request(extra=["lighting"])


def test_a_name_brings_its_option_along():
    with_option = request(extra=["lighting", "name"], name="Ann")
    assert with_option.endswith("refer to them as Ann.")
    assert request(name="Ann") == request(extra=["name"], name="Ann")
    assert "refer to them as Ann. Include" in request(extra=["lighting"], name="Ann")
    assert request(extra=["name"]).endswith("refer to them as {NAME}.")


@given(st.text(min_size=1).filter(str.strip), st.sampled_from(sorted(TYPES)), st.sampled_from([*LENGTHS, 50]))
def test_braces_of_a_name_are_text(name, kind, length):
    """Whatever is in it: places are filled by name, once."""
    plain = request(length, kind, ["pg", "name"])
    assert plain.count("{NAME}") == 1 and request(length, kind, ["pg", "name"], name) == plain.replace("{NAME}", name)


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        ({"type": "poem"}, "type must be one of descriptive, descriptive-casual, .*social-media, not 'poem'"),
        ({"type": ""}, "type must be one of"),
        ({"type": 3}, "type must be a text, not int"),
        ({"extra": ["no-text", "smell"]}, "extra must be one of name, no-fixed-traits, .*no-meta, not 'smell'"),
        ({"extra": [3]}, "extra must be a text, not int"),
        ({"length": "huge"}, "length must be one of any, very-short, short, .*, or a number of words up to 1000"),
        *(({"length": wrong}, "length must be one of") for wrong in (0, 1001, 10**5000, True, 5.0, "007", "٣", "-3")),
        ({"name": " "}, "name must not be empty"),
        ({"name": 3}, "name must be a text, not int"),
    ],
)
def test_what_there_is_not_is_said(asked, fault):
    with pytest.raises((TypeError, ValueError), match=f"^{fault}"):
        request(**asked)
