"""Descriptive 95 % intervals for pages: what a mean may really be, for a reader who looks once.

Tests that may be looked at again and again live in `evidence` and `drift`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tierlight_collector.records import ScoreSums

Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean in [0, 1] with its 95 % interval and the number of values behind it."""

    low: float
    mean: float
    high: float
    n: int


def share_interval(successes: float, n: int) -> Interval | None:
    """Wilson's score interval of a share; also for scores in [0, 1], where it is conservative. None for n = 0.

    References: E. B. Wilson, JASA 22 (1927).

    >>> i = share_interval(168, 200); round(i.low, 3), round(i.mean, 2), round(i.high, 3)
    (0.783, 0.84, 0.884)
    """
    if n == 0:
        return None
    mean = min(1.0, max(0.0, successes / n))
    spread = Z95**2 / n
    centre = (mean + spread / 2) / (1 + spread)
    half = Z95 / (1 + spread) * math.sqrt(mean * (1 - mean) / n + spread / (4 * n))
    return Interval(max(0.0, centre - half), mean, min(1.0, centre + half), n)


def quality_interval(sums: ScoreSums) -> Interval | None:
    """The interval of a mean score in [0, 1]; None when nothing was scored."""
    return share_interval(sums.sum, sums.n)
