"""The model that savings are counted against, and the price of a call on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tierlight.pricing import Cost, Usage
from tierlight_collector.records import Rollup

from ..analysis.recommend import OUTPUT_RATIO_HIGH, OUTPUT_RATIO_LOW
from ..analysis.spend import Comparison, Realised
from ..analysis.whatif import baseline
from .site import Site


def baseline_of(site: Site, parts: Sequence[Rollup]) -> tuple[str, str] | None:
    """(provider, model) of the baseline: the one that was set, else the dearest priced flagship in use.

    `parts` are rollups by (route, provider, model, tier). None when no flagship was ever used and none was set.
    """
    return baseline(parts, site.preferences().baseline_model)


@dataclass(frozen=True, slots=True)
class Saved:
    """What was saved against the baseline, and the range that a terser or wordier baseline spans."""

    likely: Realised
    low_nusd: int
    high_nusd: int


def saved(site: Site, parts: Sequence[Rollup], at_ns: int) -> Saved | None:
    """What was saved against sending every comparable call to the baseline; None without a priced baseline."""
    found = baseline_of(site, parts)
    if found is None:
        return None
    provider, model = found

    def price(*tokens: float) -> tuple[float, float] | None:
        input_tokens, cached, output_tokens = map(round, tokens)
        usage = Usage(input_tokens=input_tokens, cached_input_tokens=cached, output_tokens=output_tokens)
        cost = site.book.price(usage, provider, model, at_ns)
        return (cost.nusd, cost.output_nusd) if isinstance(cost, Cost) else None

    against = Comparison.of(((part.key[3], part) for part in parts), price)
    likely, low, high = (
        against.realised(model, ratio) for ratio in (1.0, OUTPUT_RATIO_LOW, OUTPUT_RATIO_HIGH)
    )
    if likely is None or low is None or high is None:
        return None
    return Saved(likely, low.saved_nusd, high.saved_nusd)
