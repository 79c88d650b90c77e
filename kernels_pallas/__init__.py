"""Pallas kernels with plain references; imports jax only."""
