"""Limits of settings, far beyond every known model: they keep what is built from a file bounded."""

MAX_WIDTH = 2**16  # of activations between layers
MAX_INNER = 2**20  # of those inside one
MAX_LAYERS = 1024
MAX_HEADS = 4096
MAX_VOCABULARY = 2**21
MAX_PARAMETERS = 2**40  # in all matrices
