"""The old name of `jaxphoton.models.moondream.pooling`."""

from jaxphoton.models.moondream.pooling import *  # noqa: F403
