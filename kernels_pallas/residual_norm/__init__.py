"""The end of a layer and the beginning of the next: parts of products summed, the residual added, LayerNorm."""

from kernels_pallas.residual_norm.api import residual_norm

__all__ = ["residual_norm"]
