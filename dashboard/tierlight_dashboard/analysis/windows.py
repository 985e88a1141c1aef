"""What "as before" means: the null bound of a reference, its guard, quantile thresholds, time bins and cells.

A reference never stands for its own mean: a test against the mean of 1,000 calls would ring more often than
promised. It stands for a lower bound m of that mean, lowered once more by what real traffic varies beyond
independent calls (the guard) and by the drop nobody cares about (the tolerance).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import lru_cache
from math import ceil, floor, log, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

Floats = NDArray[np.float64]

ALPHA = 0.05
GUARD_Z = 1.645
GUARD_BLOCK = 250
GUARD_BLOCKS = 8
QUANTILES = (0.5, 0.75, 0.9)
LEAST_NULL, LARGEST_NULL = 0.001, 0.999
BIN_HOURS = 3
DAY_NS = 86_400_000_000_000
_QUARTER_NS = 15 * 60_000_000_000
MOST_SEGMENTS = 8
CELL_CALLS = 100


# ---- lower bounds of a mean -----------------------------------------------------------------------------


def clopper_pearson_lower(k: int, n: int, alpha: float = ALPHA) -> float:
    """The exact lower confidence bound of a share, `k` of `n`; 0 when k = 0.

    >>> round(clopper_pearson_lower(840, 1000), 7)
    0.8196915
    """
    return float(betaincinv(k, n - k + 1, alpha)) if k > 0 else 0.0


def betting_lower(x: Floats, alpha: float = ALPHA) -> float:
    """A lower confidence bound of the mean of values in [0, 1], in their order of arrival; 0 for none.

    References: Waudby-Smith, Ramdas (2024), "Estimating means of bounded random variables by betting", JRSS-B 86.
    """
    n = len(x)
    if n == 0:
        return 0.0
    i = np.arange(1, n + 1)
    mean = (0.5 + np.cumsum(x)) / (i + 1)
    spread = (0.25 + np.cumsum((x - mean) ** 2)) / (i + 1)
    before = np.concatenate(([0.25], spread[:-1]))
    stakes = np.sqrt(2 * log(1 / alpha) / (n * before))
    bar = log(1 / alpha)
    low, high = 0.0, 1.0
    for _ in range(60):
        m = (low + high) / 2
        wealth = float(np.log1p(np.minimum(stakes, 0.75 / m) * (x - m)).sum())
        if wealth >= bar:
            low = m
        else:
            high = m
    return low


def spread_within(x: Floats) -> float:
    """The variance that independent calls of this mean would have; the sample variance for scores."""
    if is_binary(x):
        mean = float(x.mean())
        return mean * (1 - mean)
    return float(x.var(ddof=1)) if len(x) > 1 else 0.0


def excess_deviation(x: Floats, *, within: float | None = None, days: Floats | None = None) -> float:
    """How much block means vary beyond what independent calls give: the guard's standard deviation.

    Blocks are 250 calls in a row, or days (`days`: each call's day number) once there are 8 of them. 0 when
    there are fewer than 8 blocks. `within` is the variance of independent calls where it is not that of `x`.
    """
    blocks: list[Floats]
    if days is not None and len(np.unique(days)) >= GUARD_BLOCKS:
        blocks = [x[days == day] for day in np.unique(days)]
        blocks = [block for block in blocks if len(block) >= 20]
    else:
        blocks = [x[at : at + GUARD_BLOCK] for at in range(0, len(x) - GUARD_BLOCK + 1, GUARD_BLOCK)]
    if len(blocks) < GUARD_BLOCKS:
        return 0.0
    means = np.array([block.mean() for block in blocks])
    size = len(blocks) / sum(1 / len(block) for block in blocks)
    expected = (spread_within(x) if within is None else within) / size
    return sqrt(max(0.0, float(means.var(ddof=1)) - expected))


def is_binary(x: Floats) -> bool:
    return bool(np.all((x == 0) | (x == 1)))


def null_bound(
    x: Floats, *, tolerance: float = 0.0, excess: float = 0.0, weight: Floats | None = None
) -> float:
    """The null m of a reference of values in [0, 1] in their order of arrival, after guard and tolerance.

    `weight` is each call's inverse keep probability where telemetry is sampled; the reference then counts as
    many calls as its weights are worth, (sum w)^2 / sum w^2.
    """
    if weight is not None and weight.min() < weight.max():
        worth = float(weight.sum()) ** 2 / float((weight**2).sum())
        share = float((weight * x).sum() / weight.sum())
        lower = clopper_pearson_lower(floor(share * worth), floor(worth))
    elif is_binary(x):
        lower = clopper_pearson_lower(int(x.sum()), len(x))
    else:
        lower = betting_lower(x)
    return clip_null(lower - GUARD_Z * excess - tolerance)


def clip_null(m: float) -> float:
    return min(max(m, LEAST_NULL), LARGEST_NULL)


# ---- quantile form --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TailNull:
    """Three thresholds of a reference and the null share of calls on their good side.

    A rise is watched by x = 1{y <= t}, a fall by x = 1{y >= t}; k of n reference calls had x = 1.
    """

    falls: bool
    t: tuple[float, float, float]
    k: tuple[int, int, int]
    m: tuple[float, float, float]

    def x(self, y: float) -> tuple[float, float, float]:
        if self.falls:
            return (float(y >= self.t[0]), float(y >= self.t[1]), float(y >= self.t[2]))
        return (float(y <= self.t[0]), float(y <= self.t[1]), float(y <= self.t[2]))


def tail_null(values: Floats, *, falls: bool = False, excess: Sequence[float] = (0.0, 0.0, 0.0)) -> TailNull:
    """Thresholds at the median, the upper quartile and the 90th percentile (for falls: mirrored) of a reference.

    k is counted, not assumed, so ties are right. `excess` is the guard's deviation at each threshold.
    """
    ordered = np.sort(values)
    n = len(ordered)
    t: list[float] = []
    k: list[int] = []
    m: list[float] = []
    for q, deviation in zip(QUANTILES, excess, strict=True):
        if falls:
            threshold = float(ordered[floor((n - 1) * (1 - q) + 1e-9)])
            count = n - int(np.searchsorted(ordered, threshold, side="left"))
        else:
            threshold = float(ordered[ceil((n - 1) * q - 1e-9)])
            count = int(np.searchsorted(ordered, threshold, side="right"))
        t.append(threshold)
        k.append(count)
        m.append(clip_null(clopper_pearson_lower(count, n) - GUARD_Z * deviation))
    return TailNull(falls, (t[0], t[1], t[2]), (k[0], k[1], k[2]), (m[0], m[1], m[2]))


# ---- time bins and segments -----------------------------------------------------------------------------


def time_bin(start_ns: int, zone: tzinfo, *, weekends: bool = False) -> int:
    """The 3-hour bin of the local day, 0..7; weekend days are 8..15 when `weekends` are kept apart."""
    local = datetime.fromtimestamp(start_ns // 1_000_000_000, zone)
    return local.hour // BIN_HOURS + (8 if weekends and local.weekday() >= 5 else 0)


def time_bins(starts_ns: Sequence[int], zone: tzinfo, *, weekends: bool = False) -> NDArray[np.int_]:
    """`time_bin` of many calls. Zones are whole quarters of an hour apart, so a quarter lies in one bin."""
    return np.array([_bin_of_quarter(ns // _QUARTER_NS, zone, weekends) for ns in starts_ns], dtype=int)


@lru_cache(maxsize=8192)
def _bin_of_quarter(quarter: int, zone: tzinfo, weekends: bool) -> int:
    return time_bin(quarter * _QUARTER_NS, zone, weekends=weekends)


def quartile_edges(values: Floats) -> tuple[float, ...]:
    """Upper edges of the lower three quarters; fewer when values repeat; none for fewer than 400 values."""
    known = values[~np.isnan(values)]
    if len(known) < 4 * CELL_CALLS:
        return ()
    edges = np.quantile(known, (0.25, 0.5, 0.75), method="higher")
    return tuple(sorted({float(edge) for edge in edges if edge < known.max()}))


def buckets(values: Floats, edges: Sequence[float]) -> NDArray[np.int_]:
    """Which quarter each value lies in: 0..len(edges), its upper edge included; -1 when unknown."""
    return np.where(np.isnan(values), -1, np.searchsorted(np.array(edges), values, side="left"))


def kept_segments(segments: Sequence[str]) -> tuple[str, ...]:
    """The segments that get a null of their own: at most 8, each at least 100 calls, the largest first."""
    counts: dict[str, int] = {}
    for name in segments:
        counts[name] = counts.get(name, 0) + 1
    large = sorted((name for name, n in counts.items() if n >= CELL_CALLS), key=lambda s: (-counts[s], s))
    return tuple(large[:MOST_SEGMENTS])
