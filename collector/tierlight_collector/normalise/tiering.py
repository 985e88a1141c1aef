"""The tier of a model, remembered: the table is asked once per model."""

from __future__ import annotations

from functools import lru_cache

try:
    from tierlight.tiers import tier_of as _tier_of
except ImportError:  # the table lands with the prices

    def _tier_of(provider: str, model: str) -> str:  # type: ignore[misc]
        return ""


@lru_cache(maxsize=4096)
def tier_of(provider: str, model: str) -> str:
    """The tier that `tierlight.tiers` gives the model, "" where it knows none."""
    return (_tier_of(provider, model) or "") if model else ""
