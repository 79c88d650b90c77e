"""Few bits for weights: the names of the ways, and what each makes of which matrices."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("int8", "float8", "int4", "int4-64")  # of 4 bits in groups of 128 columns, or of 64
NONE = "none"  # the name of no way at all: whatever is stored in few bits is brought to the model's dtype


@dataclass(frozen=True, slots=True)
class Quantization:
    """The kind (of `KINDS`) in which matrices are stored, by their use; None for the model's dtype.

    Whatever is not named here never is in few bits: embeddings, norms, biases, routers, the factors of tau attention,
    region encoders and heads.

    Attributes:
      layers: of the text layers.
      experts: of the text layers' experts.
      head: of the vocabulary.
      vision: of the vision encoder's layers and its projection.
    """

    layers: str | None = None
    experts: str | None = None
    head: str | None = "int8"
    vision: str | None = "int8"


QUANTIZATIONS = {kind: Quantization(kind, kind) for kind in KINDS}
NAMES = (*QUANTIZATIONS, NONE)


def quantization(name: str | Quantization | None) -> Quantization | None:
    """That of a name; None for None and for "none".

    Raises:
      ValueError: there is none of this name.
    """
    if name is None or isinstance(name, Quantization) or name == NONE:
        return None if name == NONE else name
    if name not in QUANTIZATIONS:
        raise ValueError(f"quantize must be one of {', '.join(NAMES)}, got {name!r}")
    return QUANTIZATIONS[name]
