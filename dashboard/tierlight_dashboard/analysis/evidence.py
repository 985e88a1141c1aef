"""Evidence that one model may stand in for another: tests that may be looked at after every call.

A pair (or, in an A/B split, a call) gives one difference D of candidate minus current in [-b, b]. Mapped to
Z = (D + b) / 2b in [0, 1], the null "E[D | past] <= -margin" becomes "E[Z | past] <= m" with
m = (b - margin) / 2b, and

    K(m) = mean over bets of prod (1 + bet/m (Z - m))

is a nonnegative supermartingale under it, so P(K ever reaches 1/alpha) <= alpha, however often one looks.

References
    Ville (1939); Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", 2023.
    Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform central limit theory and asymptotic confidence
    sequences", 2024 (`asymptotic_radius`).
    Robins, Rotnitzky, Zhao (1994) for augmented inverse propensity weighting (`ArmMeans.difference`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.special import chdtrc

BETS = np.array([0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9])
CELLS = 1024
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class PairEvidence:
    """A histogram of Z: the whole evidence of a comparison, because K does not depend on the order.

    `cells` counts by index: 2k is exactly k/1024, 2k+1 the open interval above it. Shipping reads an interval at
    its lower edge and harm at its upper edge, which keeps both tests valid. Adding two histograms is the
    evidence of both sets of pairs: associative and commutative. `bound` is b, the largest possible |D|.

    >>> pairs = PairEvidence(1.0).add([0, 0, 1, 0, -1, 0, 0, 0, 1, 0])
    >>> round(pairs.ship(margin=0.05), 7)
    1.1470085
    """

    bound: float
    cells: Mapping[int, int] = field(default_factory=dict)

    def add(self, differences: Iterable[float]) -> PairEvidence:
        """The evidence with these differences D in [-bound, bound] added; ValueError outside of it or for NaN."""
        cells = dict(self.cells)
        for difference in differences:
            if not -self.bound <= difference <= self.bound:
                raise ValueError(f"expected a difference within ±{self.bound}, got {difference}")
            scaled = (difference + self.bound) / (2 * self.bound) * CELLS
            low = math.floor(scaled)
            index = 2 * low + (scaled != low)
            cells[index] = cells.get(index, 0) + 1
        return PairEvidence(self.bound, cells)

    def __add__(self, other: PairEvidence) -> PairEvidence:
        if self.bound != other.bound:
            raise ValueError(f"expected evidence with the bound {self.bound}, got {other.bound}")
        cells = dict(self.cells)
        for index, count in other.cells.items():
            cells[index] = cells.get(index, 0) + count
        return PairEvidence(self.bound, cells)

    @property
    def n(self) -> int:
        """Number of pairs."""
        return sum(self.cells.values())

    @property
    def mean(self) -> float | None:
        """Mean difference D (cells at their middle); None without pairs."""
        if not self.cells:
            return None
        return 2 * self.bound * self._mean_z() - self.bound

    @property
    def variance(self) -> float | None:
        """Variance of D (divisor n); None without pairs."""
        if not self.cells:
            return None
        mean_z = self._mean_z()
        squares = sum(
            (index / (2 * CELLS) - mean_z) ** 2 * count for index, count in sorted(self.cells.items())
        )
        return 4 * self.bound**2 * squares / self.n

    def ship(self, margin: float) -> float:
        """K against "the candidate is worse by `margin` or more"; 1/alpha or above is evidence to ship."""
        return math.exp(min(700.0, self._log_k((self.bound - margin) / (2 * self.bound))))

    def harm(self, margin: float) -> float:
        """K against "the candidate is not worse by more than `margin`"; 1/alpha or above says NOT OK."""
        return math.exp(min(700.0, self._mirror()._log_k((self.bound + margin) / (2 * self.bound))))

    def superior(self, margin: float) -> float:
        """K against "the candidate is better by `margin` or less"; 1/alpha or above is evidence to upgrade."""
        return self.ship(-margin)

    def lower(self, alpha: float = ALPHA) -> float:
        """Lower end of the confidence sequence for E[D] at error rate `alpha`; -bound while nothing is known."""
        if not self.cells:
            return -self.bound
        target = math.log(1 / alpha)
        low, high = 0.0, 1.0  # K falls in m: the largest m still refuted
        for _ in range(60):
            middle = (low + high) / 2
            if self._log_k(middle) >= target:
                low = middle
            else:
                high = middle
        return 2 * self.bound * low - self.bound

    def upper(self, alpha: float = ALPHA) -> float:
        """Upper end of the confidence sequence for E[D]; +bound while nothing is known."""
        return -self._mirror().lower(alpha)

    def _mirror(self) -> PairEvidence:
        return PairEvidence(self.bound, {2 * CELLS - index: count for index, count in self.cells.items()})

    def _mean_z(self) -> float:
        # whole numbers until the last step: the same figure whatever the order of the pairs
        return sum(index * count for index, count in self.cells.items()) / (2 * CELLS * self.n)

    def _log_k(self, m: float) -> float:
        if not self.cells or m <= 0:
            return math.inf if m <= 0 else 0.0
        indices = sorted(self.cells)
        values = np.array([index // 2 for index in indices]) / CELLS
        counts = np.array([self.cells[index] for index in indices], dtype=float)
        gains = counts @ np.log1p(np.outer(values - m, BETS / m))
        top = gains.max()
        return float(top + np.log(np.mean(np.exp(gains - top))))

    def to_json(self) -> dict[str, object]:
        """A plain form that `from_json` turns back without loss."""
        return {
            "bound": self.bound,
            "cells": {str(index): count for index, count in sorted(self.cells.items())},
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, object]) -> PairEvidence:
        """The evidence that `to_json` wrote."""
        cells = plain["cells"]
        bound = plain["bound"]
        if not isinstance(cells, Mapping) or not isinstance(bound, int | float):
            raise ValueError("expected the keys 'bound' (a number) and 'cells' (an object)")
        return cls(float(bound), {int(index): int(count) for index, count in cells.items()})


def pairs_for_ties(margin: float, alpha: float = ALPHA) -> int:
    """Least number of pairs, all ties, that ship at `margin`: no comparison can be shorter.

    >>> [pairs_for_ties(m) for m in (0.10, 0.05, 0.03)]
    [48, 100, 168]
    """
    low, high = 1, 2
    while PairEvidence(1.0, {CELLS: high}).ship(margin) < 1 / alpha:
        low, high = high, high * 2
    while low < high:
        middle = (low + high) // 2
        if PairEvidence(1.0, {CELLS: middle}).ship(margin) >= 1 / alpha:
            high = middle
        else:
            low = middle + 1
    return low


@dataclass(frozen=True, slots=True)
class ArmMeans:
    """Running means of both arms of an A/B split, for differences that are final when stored.

    `candidate` and `control` are (count, sum of outcomes in [0, 1]) of EARLIER calls.
    """

    candidate: tuple[int, float] = (0, 0.0)
    control: tuple[int, float] = (0, 0.0)

    def difference(self, is_candidate: bool, outcome: float, propensity: float) -> float:
        """The AIPW difference of one call; `propensity` is the logged probability of the candidate, in (0, 1).

        Its absolute value is at most `1 / min(propensity, 1 - propensity)`.
        """
        if not 0 < propensity < 1:
            raise ValueError(f"expected a propensity strictly between 0 and 1, got {propensity}")
        candidate = (self.candidate[1] + 0.5) / (self.candidate[0] + 1)
        control = (self.control[1] + 0.5) / (self.control[0] + 1)
        if is_candidate:
            return candidate - control + (outcome - candidate) / propensity
        return candidate - control - (outcome - control) / (1 - propensity)

    def add(self, is_candidate: bool, outcome: float) -> ArmMeans:
        """The means with this outcome counted."""
        if is_candidate:
            return ArmMeans((self.candidate[0] + 1, self.candidate[1] + outcome), self.control)
        return ArmMeans(self.candidate, (self.control[0] + 1, self.control[1] + outcome))


def asymptotic_radius(
    variance: float, n: int, planned: int, alpha: float = ALPHA, *, two_sided: bool = False
) -> float:
    """Half width of an asymptotic confidence sequence for a mean after `n` (>= 100) values, tightest near `planned`.

    For money and latency, which have no useful bound. Quality never ships on it.

    >>> round(asymptotic_radius(1.0, 500, 500), 6)
    0.124285
    """
    a = alpha if two_sided else 2 * alpha
    rho2 = (-2 * math.log(a) + math.log(1 - 2 * math.log(a))) / planned
    grown = n * rho2 + 1
    inner = math.log(math.sqrt(grown) / alpha) if two_sided else math.log(1 + math.sqrt(grown) / (2 * alpha))
    return math.sqrt(variance * 2 * grown / (n**2 * rho2) * inner)


def sample_ratio_p(candidate: int, control: int, share: float) -> float:
    """p of the chi-square test that the split is the agreed one; below .001 the assignment is broken.

    >>> round(sample_ratio_p(1050, 950, 0.5), 4)
    0.0253
    """
    total = candidate + control
    if total == 0:
        return 1.0
    expected = (total * share, total * (1 - share))
    statistic = (candidate - expected[0]) ** 2 / expected[0] + (control - expected[1]) ** 2 / expected[1]
    return float(chdtrc(1, statistic))
