"""A product with a matrix of 4 or 8 bits whose factors belong to groups of columns; it is never written out wider."""

from kernels_pallas.quant_matmul.api import quant_matmul

__all__ = ["quant_matmul"]
