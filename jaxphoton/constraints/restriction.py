"""The restriction among a request's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEYS = ("schema", "choices")


def take_restriction(settings: Mapping[str, Any] | None) -> tuple[Mapping[str, Any] | None, Mapping[str, Any]]:
    """Parts settings into those of sampling and the restriction of the answer (one of KEYS, or nothing).

    Raises:
      ValueError: both are given.
    """
    if not isinstance(settings, Mapping):
        return settings, {}
    restriction = {key: settings[key] for key in KEYS if settings.get(key) is not None}
    if len(restriction) > 1:
        raise ValueError("give schema or choices, not both")
    return {key: value for key, value in settings.items() if key not in KEYS}, restriction
