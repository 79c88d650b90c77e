"""Host side of an image: any file -> upright RGB -> overlapping crops and their pooling matrices.

`decode` (with `pillow`, `colour`, `errors`) reads files, `resize` (in one of the `ways`), `crops` and `pooling` do the
geometry, `prepare` is both; `pool` runs `prepare` in worker processes (`supervisor`, `worker`). Never imports jax, so
that image workers start quickly and cannot touch a device.
"""
