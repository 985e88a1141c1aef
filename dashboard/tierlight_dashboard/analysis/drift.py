"""The drift detector: a mixture of e-detectors in Shiryaev-Roberts form, and what its alarms mean.

Each call gives x in [0, 1], 1 = good. Under "the mean of x, given the past, is at least m" every bet has
expectation 1, so R grows by at most 1 a call and the mean number of calls to a false alarm is at least the
alarm threshold A, however often one looks and whatever the other tests do.

A *lane* is one vector of eleven bets. A test has one lane, or several whose R are averaged (the quantile
form of latency, tokens and cost; the traffic mix), each with its own null. `step` is the plain definition for
one lane; `advance` does the same, to the bit, for one call of many lanes, `advance_rows` for many calls of them.

References: Shin, Ramdas, Rinaldo (2024), "E-detectors: a nonparametric framework for sequential change
detection", New England Journal of Statistics in Data Science 2(2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, isfinite, log, log1p, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Severity = Literal["page", "ticket", "info"]

DROPS = (0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8)
BURNS = (1.5, 2.0, 3.0, 4.0, 6.0, 9.0, 14.0, 22.0, 40.0, 80.0, 160.0)
BETS = len(DROPS)
CAP = 1e200
LEAST_THRESHOLD = 1000.0
RESOLVED_AT = 1000.0
RECENT = 50
MONTH_DAYS = 28
# False alarms a month that the whole installation accepts, by level.
BUDGET: dict[Severity, float] = {"page": 2.0, "ticket": 10.0, "info": 20.0}


# ---- the bets -------------------------------------------------------------------------------------------


def alternatives(m: float, *, error_like: bool = False) -> tuple[float, ...]:
    """The eleven worse means that the bets are made for, given the null bound `m` in (0, 1).

    `error_like` signals (1 = no error) with m above .97 get a grid of failure-rate multiples instead of
    drops, so that a slow burn from 99.8 % is found as well as an outage.
    """
    if error_like and m > 0.97:
        return tuple(1 - min((1 - m) * burn, 0.98) for burn in BURNS)
    fallback = [0.9 + j * (0.05 - 0.9) / (BETS - 1) for j in range(BETS)]
    return tuple(
        m - drop if m - drop > 0.02 * m else m * share for drop, share in zip(DROPS, fallback, strict=True)
    )


def bets(m: float, *, error_like: bool = False) -> tuple[float, ...]:
    """The stakes lambda: the likelihood ratio of each alternative against `m`, linear in x."""
    return tuple((m - q) / (m * (1 - m)) for q in alternatives(m, error_like=error_like))


_DROPS, _BURNS = (np.array(grid)[:, None] for grid in (DROPS, BURNS))
_SHARES = np.array([0.9 + j * (0.05 - 0.9) / (BETS - 1) for j in range(BETS)])[:, None]


def stakes(m: Floats, *, error_like: bool = False) -> Floats:
    """`bets` of many nulls at once, to the bit: one row a bet, one column a null."""
    q = m - _DROPS
    q = np.where(q > 0.02 * m, q, m * _SHARES)
    if error_like:
        q = np.where(m > 0.97, 1 - np.minimum((1 - m) * _BURNS, 0.98), q)
    return np.asarray((m - q) / (m * (1 - m)))


# ---- one lane, plainly ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lane:
    """Evidence so far of one lane: R, the e-CUSUM C, and where each C last started from 1."""

    R: tuple[float, ...] = (0.0,) * BETS
    C: tuple[float, ...] = (0.0,) * BETS
    start: tuple[float, ...] = (0.0,) * BETS

    @property
    def evidence(self) -> float:
        """The mean of R over the bets; compared with the alarm threshold."""
        return mean_in_order(self.R)


def mean_in_order(values: Sequence[float]) -> float:
    """The mean of numbers added in their order, so that every implementation gives the same bits."""
    total = 0.0
    for value in values:
        total = total + value
    return total / len(values)


def step(lane: Lane, x: float, m: float, lam: Sequence[float], at: float, w: float = 1.0) -> Lane:
    """The lane after one call with value `x` in [0, 1] under null `m` and stakes `lam`.

    `at` says when the call was (any rising number). `w` in (0, 1] is the smallest keep probability over this
    call's, 1 when nothing is sampled.
    """
    R, C, start = [], [], []
    for j, stake in enumerate(lam):
        factor = 1 + (w * stake) * (m - x)
        R.append(min((lane.R[j] + 1) * factor, CAP))
        restarts = lane.C[j] <= 1
        C.append(min((1.0 if restarts else lane.C[j]) * factor, CAP))
        start.append(at if restarts else lane.start[j])
    return Lane(tuple(R), tuple(C), tuple(start))


# ---- many lanes at once ---------------------------------------------------------------------------------

# Lanes are columns: [R, C, start] x bets x lanes. Columns of different tests stand side by side.


def new_lanes(count: int) -> Floats:
    return np.zeros((3, BETS, count))


def advance(lanes: Floats, x: Floats, m: Floats, lam: Floats, at: Floats, w: Floats) -> Floats:
    """All lanes after one call each: `x`, `m`, `at`, `w` hold one number a lane, `lam` one row a bet."""
    R, C, start = lanes
    factor = 1 + (w * lam) * (m - x)
    after = np.empty_like(lanes)
    np.minimum((R + 1) * factor, CAP, out=after[0])
    restarts = C <= 1
    np.minimum(np.where(restarts, 1.0, C) * factor, CAP, out=after[1])
    after[2] = np.where(restarts, at, start)
    return after


def advance_rows(lanes: Floats, factors: Floats, at: Floats, counts: Sequence[int]) -> None:
    """All lanes after many calls each, in place; `factors` (calls x bets x lanes) become R after each call.

    `factors` are 1 + (w lam) (m - x), `at` has one row a call. The first `counts[t]` lanes have a call in turn t;
    counts never rise.
    """
    R, C, start = lanes
    for factor, when, count in zip(factors, at, counts, strict=True):
        if count < R.shape[1]:
            lanes[0][:, count : R.shape[1]] = R[:, count:]
            R, C, start = R[:, :count], C[:, :count], start[:, :count]
        now = factor[:, :count]
        np.copyto(start, when[:count], where=C <= 1)
        np.maximum(C, 1.0, out=C)
        np.multiply(C, now, out=C)
        np.minimum(C, CAP, out=C)
        np.multiply(R + 1, now, out=now)
        np.minimum(now, CAP, out=now)
        R = now
    lanes[0][:, : R.shape[1]] = R


def lane_evidence(lanes: Floats) -> Floats:
    """R of each lane, the mean over its bets in the fixed order."""
    total: Floats = np.zeros(lanes.shape[2])
    for row in lanes[0]:
        total = total + row
    return total / BETS


def change_hint(lanes: Floats) -> float:
    """Where the largest C started: a first estimate of when the change began."""
    j, lane = np.unravel_index(int(np.argmax(lanes[1])), lanes[1].shape)
    return float(lanes[2, j, lane])


# ---- thresholds and what they can see -------------------------------------------------------------------


def alarm_threshold(units_total: float, units: float, calls_a_month: float, budget: float) -> float:
    """A for a test of `units` when all open tests of its level have `units_total` and share `budget` alarms a month.

    Depends on budget and volume only, never on another test's evidence; then the sum of calls / A over the
    tests is at most the budget, whatever their dependence.
    """
    return max(LEAST_THRESHOLD, units_total * max(calls_a_month, 100.0) / (budget * units))


def divergence(p: float, q: float) -> float:
    """Kullback-Leibler divergence of Bernoulli(p) from Bernoulli(q), in nats; inf where q rules p out."""

    def term(a: float, b: float) -> float:
        if a == 0:
            return 0.0
        return a * log(a / b) if b > 0 else inf

    return term(p, q) + term(1 - p, 1 - q)


def calls_to_see(p1: float, m: float, threshold: float = 1e4) -> float:
    """About how many calls a fall of the mean from at least `m` to `p1` takes to be found; inf if p1 >= m."""
    if p1 >= m:
        return inf
    return log(threshold) / divergence(p1, m)


def can_see(p1: float, m: float, threshold: float, calls_a_day: float) -> str:
    """One phrase for the page: what a drop to `p1` takes at this budget and volume, or that it is not visible."""
    calls = calls_to_see(p1, m, threshold)
    days = calls / calls_a_day if calls_a_day > 0 else inf
    if not isfinite(calls) or days > 30:
        return f"a drop to {100 * p1:.0f} % is not visible within 30 days at this volume"
    length = f"{days:.1f} days" if days >= 1 else f"{24 * days:.1f} hours"
    return f"a drop to {100 * p1:.0f} % takes about {calls:,.0f} calls, {length}"


def meter(evidence: float, threshold: float) -> float:
    """ln R / ln A in 0..1: .5 is amber, 1 an alarm; 0 while R is at most 1."""
    return min(max(log(evidence) / log(threshold), 0.0), 1.0) if evidence > 1 else 0.0


# ---- size of an effect ----------------------------------------------------------------------------------

_LAMBDAS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)


def log_wealth(n: float, total: float, m: float) -> float:
    """log K against "the mean is at most m" after `n` values in [0, 1] that sum to `total`.

    Values strictly inside (0, 1) count as a coin flip of their size: by Jensen that never overstates K.
    """
    terms = [total * log1p(lam * (1 - m) / m) + (n - total) * log1p(-lam) for lam in _LAMBDAS]
    top = max(terms)
    return top + log(sum(exp(term - top) for term in terms) / len(terms))


def mean_interval(n: int, total: float, alpha: float = 0.05) -> tuple[float, float]:
    """An interval that holds the mean of [0, 1] values with probability 1 - alpha at any look; (0, 1) at n = 0."""
    return _lower_end(n, total, alpha), 1 - _lower_end(n, n - total, alpha)


def _lower_end(n: int, total: float, alpha: float) -> float:
    if n == 0 or total <= 0:
        return 0.0
    bar = log(1 / alpha)
    low, high = 0.0, total / n
    for _ in range(60):
        middle = (low + high) / 2
        if middle > 0 and log_wealth(n, total, middle) < bar:
            high = middle
        else:
            low = middle
    return low if low > 1e-12 else 0.0


def severity(near_end: float, page_at: float | None, ticket_at: float | None) -> Severity:
    """The largest level whose size the near end of the effect's interval reaches; `None` = never that level.

    `near_end` is the smallest size of the effect that the interval allows, positive = worse.
    """
    if page_at is not None and near_end >= page_at:
        return "page"
    if ticket_at is not None and near_end >= ticket_at:
        return "ticket"
    return "info"


SEVERITY_ORDER: dict[Severity, int] = {"info": 0, "ticket": 1, "page": 2}


def worse_of(a: Severity, b: Severity) -> Severity:
    return a if SEVERITY_ORDER[a] >= SEVERITY_ORDER[b] else b


def amber_threshold(threshold: float) -> float:
    """R from which a test is on the watch list."""
    return sqrt(threshold)
