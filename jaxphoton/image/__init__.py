"""Host side of an image: any file -> upright RGB -> overlapping crops and their pooling matrices.

NumPy and Pillow only; never imports jax, so that image workers start quickly and cannot touch a device.
"""
