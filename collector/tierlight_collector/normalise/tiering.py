"""The tier of a model, remembered: the table is asked once per model."""

from __future__ import annotations

from functools import lru_cache

from tierlight import tiers


@lru_cache(maxsize=4096)
def tier_of(provider: str, model: str) -> str:
    """The tier that `tierlight.tiers` gives the model, "" where it knows none."""
    return (tiers.tier_of(provider, model) or "") if model else ""
