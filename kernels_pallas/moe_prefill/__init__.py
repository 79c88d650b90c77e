"""The chosen experts of many tokens: gated feed-forward layers, each on its own tokens alone."""

from kernels_pallas.moe_prefill.api import moe_prefill

__all__ = ["moe_prefill"]
