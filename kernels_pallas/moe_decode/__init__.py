"""The chosen experts of a few tokens: gated feed-forward layers of which no other expert is read."""

from kernels_pallas.moe_decode.api import moe_decode

__all__ = ["moe_decode"]
