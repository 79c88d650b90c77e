"""Prefill attention over paged keys and values: an image prefix seen both ways, text causally, rows of any length."""

from kernels_pallas.prefix_attention.api import prefix_attention

__all__ = ["prefix_attention"]
