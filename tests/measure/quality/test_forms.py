"""Names of forms: what each loads, and what is refused."""

from __future__ import annotations

import pytest

from jaxphoton.config.quantization import KINDS, NONE, Quantization
from jaxphoton.measure.quality.forms import WeightForm, parse_form


def test_plain_numbers_and_what_is_stored():
    assert parse_form("bfloat16") == WeightForm("bfloat16", "bfloat16", NONE)
    assert parse_form("stored") == WeightForm("stored", None, None)


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(kind):
    form = parse_form(kind)
    assert form.dtype is None and form.quantize == Quantization(kind, kind)


def test_changes_to_a_kind():
    form = parse_form("int4+head=none+vision=int4-64")
    assert form.name == "int4+head=none+vision=int4-64"
    assert form.quantize == Quantization("int4", "int4", head=None, vision="int4-64")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("int5", "no form of weights 'int5'; there are float32, bfloat16, stored, int8"),
        ("bfloat16+head=int8", "no form of weights"),
        ("int4+tail=int8", "'tail=int8' in the form .* must be one of layers, experts, head, vision"),
        ("int4+head", "'head' in the form"),
        ("int4+head=int3", "int8, float8, int4, int4-64, none"),
        ("", "no form of weights"),
    ],
)
def test_what_is_none_is_named_with_what_is_allowed(text, fault):
    with pytest.raises(ValueError, match=fault):
        parse_form(text)
