"""Host side of an image: any file -> upright RGB -> overlapping crops and their pooling matrices.

`decode` (with `pillow`, `colour`, `errors`) reads files, `crops` and `pooling` do the geometry, `prepare` is both;
`pool` runs `prepare` in worker processes (`lane`, `process`, `worker`). NumPy and Pillow only; never imports jax, so
that image workers start quickly and cannot touch a device.
"""
