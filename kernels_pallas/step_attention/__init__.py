"""The attention of a decode step from the input product on: rotates, writes the new key and value, attends."""

from kernels_pallas.step_attention.api import step_attention

__all__ = ["step_attention"]
