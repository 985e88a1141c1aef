"""What a change of model saves per call: measured pair by pair, never from list-price ratios."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .evidence import ALPHA, asymptotic_radius, pairs_for_ties


@dataclass(frozen=True, slots=True)
class Saving:
    """Saving per call with its interval, in the unit of the differences it was made from. The lower end comes first
    on every page: the mean alone flatters (winner's curse)."""

    n: int
    mean: float
    capped_mean: float
    low: float
    high: float

    def per_month(self, calls: int) -> tuple[float, float, float]:
        """(low, mean, high) for `calls` calls, those of the last 28 days."""
        return self.low * calls, self.mean * calls, self.high * calls


def saving_per_call(differences: Sequence[float], alpha: float = ALPHA, planned: int = 1000) -> Saving | None:
    """Saving per call from differences current minus candidate (retries and checks included); None below 100 pairs.

    The lower end caps the upper tail at its 99th percentile first, which can only make it smaller.
    """
    values = np.asarray(differences, dtype=float)
    n = values.size
    if n < 100:
        return None
    capped = np.minimum(values, np.quantile(values, 0.99))
    low = float(capped.mean()) - asymptotic_radius(float(capped.var()), n, planned, alpha)
    high = float(values.mean()) + asymptotic_radius(float(values.var()), n, planned, alpha)
    return Saving(n, float(values.mean()), float(capped.mean()), low, high)


@dataclass(frozen=True, slots=True)
class CascadeEconomics:
    """A cascade against sending everything to its top step; costs per call in one unit, shares 0..1.

    >>> c = CascadeEconomics(cheap=0.0005, check=0.0002, flagship=0.0138, accepted=0.7)
    >>> round(c.break_even, 4), round(c.saving(), 5), round(c.quality_change(-0.03), 3), round(c.margin(0.02), 4)
    (0.0507, 0.00896, -0.021, 0.0286)
    """

    cheap: float
    check: float
    flagship: float
    accepted: float

    @property
    def break_even(self) -> float:
        """Acceptance below which the cascade costs more than the flagship alone."""
        return (self.cheap + self.check) / self.flagship

    def saving(self, flagship_cost_of_accepted: float | None = None) -> float:
        """Saving per call; the flagship's cost on accepted calls is its mean cost unless measured."""
        avoided = self.flagship if flagship_cost_of_accepted is None else flagship_cost_of_accepted
        return self.accepted * avoided - self.cheap - self.check

    def quality_change(self, difference_on_accepted: float) -> float:
        """Change of the route's quality when the cheap answer differs by this much on accepted calls."""
        return self.accepted * difference_on_accepted

    def margin(self, route_margin: float) -> float:
        """Margin to test on accepted calls so that the whole route keeps `route_margin`."""
        return route_margin / self.accepted


@dataclass(frozen=True, slots=True)
class TimeToDecision:
    """Pairs (shadow) or calls (A/B) until half, and nine in ten, of such comparisons have been decided."""

    n50: int
    n90: int


def time_to_decision(variance: float, margin: float, expected_difference: float) -> TimeToDecision | None:
    """How long a comparison takes, before anything is spent; None when it cannot be decided.

    `variance` is that of D, `expected_difference` the likely quality difference (candidate minus current).
    The coefficients 7.5 and 17 were measured on 600 seeded runs each.
    """
    room = margin + expected_difference
    if room <= 0:
        return None
    ties = pairs_for_ties(margin)
    return TimeToDecision(
        max(ties, math.ceil(7.5 * variance / room**2)), max(ties, math.ceil(17 * variance / room**2))
    )
