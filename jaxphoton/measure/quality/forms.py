"""Names of forms of a whole model's weights. No jax."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from jaxphoton.config.quantization import KINDS, NONE, QUANTIZATIONS, Quantization
from jaxphoton.messages import quoted

PLAIN = ("float32", "bfloat16")
STORED = "stored"
USES = tuple(field.name for field in dataclasses.fields(Quantization))
ALLOWED = (
    f"{', '.join((*PLAIN, STORED, *QUANTIZATIONS))}, the last ones with changes such as int4+head=none+vision=int4"
)


@dataclass(frozen=True, slots=True)
class WeightForm:
    """How a model is loaded.

    Attributes:
      name: as it was written.
      dtype: of what is not in few bits; None for the model's.
      quantize: as `load_model` takes it.
    """

    name: str
    dtype: str | None
    quantize: str | Quantization | None


def parse_form(text: str) -> WeightForm:
    """The form of a name: "float32" and "bfloat16" (plain in that dtype), "stored" (as the file has it), one of
    `QUANTIZATIONS`, or that with other kinds for some uses of matrices: "int4+head=none+vision=int4".

    Raises:
      ValueError: it is none of these.
    """
    base, *changes = text.split("+")
    if text in PLAIN:
        return WeightForm(text, text, NONE)
    if text == STORED:
        return WeightForm(text, None, None)
    if base not in QUANTIZATIONS:
        raise ValueError(f"no form of weights {quoted(text)}; there are {ALLOWED}")
    found = QUANTIZATIONS[base]
    for change in changes:
        use, _, kind = change.partition("=")
        if use not in USES or kind not in (*KINDS, NONE):
            allowed = f"one of {', '.join(USES)}, an equals sign, and one of {', '.join((*KINDS, NONE))}"
            raise ValueError(f"{quoted(change)} in the form {quoted(text)} must be {allowed}")
        found = dataclasses.replace(found, **{use: None if kind == NONE else kind})
    return WeightForm(text, None, found)
