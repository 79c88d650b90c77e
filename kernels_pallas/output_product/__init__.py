"""The product at the end of a layer, of attention and MLP together, in parts that are summed elsewhere."""

from kernels_pallas.output_product.api import output_product

__all__ = ["output_product"]
