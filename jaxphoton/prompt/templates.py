"""The old name of `jaxphoton.models.moondream.prompts`."""

from jaxphoton.models.moondream.prompts import *  # noqa: F403
