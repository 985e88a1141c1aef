"""What people set on the settings page, read from the store's settings; pages, watch and report read it here.

A stored value that cannot be read counts as not set: the settings page checks before it saves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

SHADOW_BUDGET_NUSD: Final = 100_000_000_000


@dataclass(frozen=True, slots=True)
class Preferences:
    """Money is shown in `currency` (`per_usd` units for a dollar); shares are 0..1; None is "not set"."""

    currency: str = "USD"
    symbol: str = "$"
    per_usd: float = 1.0
    rate_date: str = ""
    zone: str = "UTC"
    baseline_model: str = ""  # "" = the dearest flagship in use
    month_budget_nusd: int | None = None
    floor: float | None = None
    margin: float | None = None
    floors: Mapping[str, float] = field(default_factory=dict)
    margins: Mapping[str, float] = field(default_factory=dict)
    gate_scores: Mapping[str, str] = field(default_factory=dict)
    owners: Mapping[str, str] = field(default_factory=dict)
    trace_url: str = ""
    keys: bool = True
    shadow_budget_nusd: int = SHADOW_BUDGET_NUSD  # what one shadow test may cost in all
    tier_floors: Mapping[str, float] = field(default_factory=dict)
    tier_margins: Mapping[str, float] = field(default_factory=dict)
    tiers: Mapping[str, str] = field(default_factory=dict)  # of the routes, for the two above
    alert_sizes: Mapping[str, float] = field(default_factory=dict)  # "page.quality" -> size of the effect
    alert_budget: Mapping[str, float] = field(default_factory=dict)  # "page" -> false alarms a month

    def floor_of(self, route: str) -> float | None:
        """The agreed quality floor of a route, else the one of its tier, else the common one."""
        return self.floors.get(route, self.tier_floors.get(self.tiers.get(route, ""), self.floor))

    def margin_of(self, route: str) -> float | None:
        """How much worse a stand-in may be on a route, else on its tier, else anywhere."""
        return self.margins.get(route, self.tier_margins.get(self.tiers.get(route, ""), self.margin))


def share(text: str) -> float | None:
    """A share from "0.88", "88%" or "88"; None when it is none of these or outside 0..1.

    >>> share("88 %"), share("0.88"), share("1.2")
    (0.88, 0.88, None)
    """
    plain = text.strip().removesuffix("%").strip()
    try:
        value = float(plain)
    except ValueError:
        return None
    if text.strip().endswith("%") or value > 2:
        value /= 100
    return value if math.isfinite(value) and 0 <= value <= 1 else None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def goes_by_tier(settings: Mapping[str, str]) -> bool:
    """Whether a floor or margin is set for a tier, so that the tiers of routes matter."""
    return any(value and key.startswith(("tier_floor:", "tier_margin:")) for key, value in settings.items())


def preferences(settings: Mapping[str, str], tiers: Mapping[str, str] | None = None) -> Preferences:
    """The preferences in the store's settings; `name:<route>` holds a route's own value. `tiers` are those of the routes."""

    def by_route(name: str) -> dict[str, str]:
        return {k.partition(":")[2]: v for k, v in settings.items() if k.startswith(name + ":") and v}

    def shares(name: str) -> dict[str, float]:
        return {k: s for k, v in by_route(name).items() if (s := share(v)) is not None}

    def numbers(prefix: str) -> dict[str, float]:
        found = {k.removeprefix(prefix): _number(v) for k, v in settings.items() if k.startswith(prefix)}
        return {k: v for k, v in found.items() if v is not None}

    budget = _number(settings.get("budget.month_usd"))
    shadow = _number(settings.get("shadow.max_spend_usd"))
    rate = _number(settings.get("currency.per_usd"))
    return Preferences(
        currency=settings.get("currency.code") or "USD",
        symbol=settings.get("currency.symbol") or "$",
        per_usd=rate or 1.0,
        rate_date=settings.get("currency.date", ""),
        zone=settings.get("zone") or "UTC",
        baseline_model=settings.get("baseline.model", ""),
        month_budget_nusd=None if budget is None else round(budget * 1e9),
        floor=share(settings.get("floor", "")),
        margin=share(settings.get("margin", "")),
        floors=shares("floor"),
        margins=shares("margin"),
        gate_scores=by_route("gate_score"),
        owners=by_route("owner"),
        trace_url=settings.get("trace_url", ""),
        keys=settings.get("keys") != "off",
        shadow_budget_nusd=SHADOW_BUDGET_NUSD if shadow is None else round(shadow * 1e9),
        tier_floors=shares("tier_floor"),
        tier_margins=shares("tier_margin"),
        tiers=tiers or {},
        alert_sizes=numbers("alert.size."),
        alert_budget=numbers("alert.budget."),
    )
