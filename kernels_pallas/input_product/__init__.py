"""A product of a few rows with a matrix and its bias: what a layer computes of its normalised input, gelu included."""

from kernels_pallas.input_product.api import input_product

__all__ = ["input_product"]
