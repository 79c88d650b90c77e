"""Which experts a token goes to: the router's product, its best logits, and their softmax."""

from kernels_pallas.moe_route.api import moe_route

__all__ = ["moe_route"]
