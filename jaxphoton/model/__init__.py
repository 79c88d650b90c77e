"""The network as pure functions over pytrees of parameters.

Axis letters used in shapes and einsum strings:
B rows, T tokens, S keys, D model, N query heads, K key/value heads, H head dim, P pages, G page size, C crops,
V vocabulary, L layers, I images, E vision dim, A B cells of the pooled grid.

Invariants: no module state, no Python-side effects in anything jitted; `params.abstract` is the one truth of
shapes; in float32 every dot asks for the highest precision. May import `config`, `kernels_pallas` and jax;
never `engine` or `skills`.
"""
