"""Attention of one query token a row over paged keys and values."""

from kernels_pallas.paged_attention.api import paged_attention

__all__ = ["paged_attention"]
