"""A layer's tau product: what the factors of its queries and values are made of, from its q, k and v."""

from kernels_pallas.tau_product.api import tau_product

__all__ = ["tau_product"]
