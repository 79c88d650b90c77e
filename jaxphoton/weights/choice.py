"""In what form matrices are to be once they are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxphoton.config.quantization import NONE, Quantization, quantization
from jaxphoton.layers.spec import RowScaledForm
from jaxphoton.models.forms import Forms
from jaxphoton.models.naming import Use
from jaxphoton.weights.checkpoint import WeightsError

Quantize = str | Quantization | None


@dataclass(frozen=True, slots=True)
class Choice:
    """In what form matrices are to be.

    Attributes:
      quantized: keep the experts of a checkpoint in which they alone are in float8.
      quantize: how what is stored plainly is quantized; "none": and all else brought to the model's dtype.

    Raises:
      WeightsError: the two exclude each other, or there is no such way.
    """

    quantized: bool = False
    quantize: Quantize = None

    def __post_init__(self) -> None:
        try:
            quantization(self.quantize)
        except ValueError as error:
            raise WeightsError(str(error)) from None
        if self.quantized and self.quantize == NONE:
            raise WeightsError("float8 experts cannot be kept where nothing is to be in few bits")

    @property
    def wanted(self) -> Quantization | None:
        return quantization(self.quantize)

    def kept(self, stored: Forms, uses: Mapping[str, Use]) -> Forms:
        """Of the forms that are stored, those that stay.

        All do, since the file was chosen for them; but float8 experts are so for training too, and stay where that
        is said, or where the rest is to be quantized.

        Raises:
          WeightsError: there are none to keep.
        """
        if self.quantized and not stored:
            raise WeightsError(
                "the weights hold no float8 experts to keep: they are in another type, or there are none"
            )
        if self.quantize == NONE:
            return {}
        experts = all(uses.get(path) == "experts" and isinstance(form, RowScaledForm) for path, form in stored.items())
        return {} if experts and not self.quantized and self.quantize is None else stored
