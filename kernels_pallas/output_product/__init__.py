"""The product at the end of a layer, of attention and MLP together, in parts: gelu on the way in, the sum elsewhere."""

from kernels_pallas.output_product.api import output_product

__all__ = ["output_product"]
