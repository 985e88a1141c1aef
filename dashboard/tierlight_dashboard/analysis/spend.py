"""What a month will cost, and what was saved against sending every call to one model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from tierlight_collector.records import Rollup

MONTH_DAYS = 30
# Neither is a chat answer that a flagship could give: comparing an embedding with one would invent a saving.
NOT_COMPARABLE = frozenset({"specialised"})


@dataclass(frozen=True, slots=True)
class Forecast:
    """The cost of the next 30 days with a 95 % prediction interval, from `days` whole days."""

    low: float
    middle: float
    high: float
    days: int


def forecast(daily: Sequence[float]) -> Forecast | None:
    """Nano-dollars of the next 30 days from whole past days; None below 3 of them.

    A prediction interval for a sum of 30 further days drawn like these, so it covers both the scatter of days and
    the uncertain mean; a trend or a launch is not in it.

    References: the textbook prediction interval of a mean (Student's t).

    >>> f = forecast([100.0, 100.0, 100.0]); f.low, f.middle, f.high
    (3000.0, 3000.0, 3000.0)
    """
    n = len(daily)
    if n < 3:
        return None
    mean = math.fsum(daily) / n
    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in daily) / (n - 1))
    half = float(stdtrit(n - 1, 0.975)) * deviation * math.sqrt(MONTH_DAYS + MONTH_DAYS**2 / n)
    return Forecast(max(0.0, MONTH_DAYS * mean - half), MONTH_DAYS * mean, MONTH_DAYS * mean + half, n)


@dataclass(frozen=True, slots=True)
class Realised:
    """What the same tokens would have cost on the baseline, over the calls that could be compared."""

    baseline: str
    actual_nusd: int
    baseline_nusd: int
    calls: int
    left_out: int  # calls without price or tokens, or of a kind the baseline cannot do

    @property
    def saved_nusd(self) -> int:
        return self.baseline_nusd - self.actual_nusd

    @property
    def share(self) -> float | None:
        """Saved part of the baseline's cost; negative where more was spent."""
        return self.saved_nusd / self.baseline_nusd if self.baseline_nusd > 0 else None


# Nano-dollars of one call of (input, cached input, output) tokens on the baseline, and of its output alone; None where
# it has no price.
PriceOfCall = Callable[[float, float, float], tuple[float, float] | None]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Calls that can be compared with the baseline: (calls, what a mean one costs there, its output alone)."""

    groups: Sequence[tuple[int, float, float]]
    actual_nusd: int
    left_out: int

    @classmethod
    def of(cls, uses: Iterable[tuple[str, Rollup]], price: PriceOfCall) -> Comparison:
        """Of (tier, sums of one model on one route).

        The baseline is priced at the mean call of each group, so that a price step for long prompts is met only where
        the calls meet it. A call without tokens (a failure, mostly) has no cost on either side. A group with calls
        that have tokens but no price is left out whole: its sum of cost does not belong to its sum of tokens.
        """
        groups = []
        actual = left_out = 0
        for tier, sums in uses:
            known = sums.calls - sums.tokens_unknown
            usable = known > 0 and sums.unpriced <= sums.tokens_unknown and tier not in NOT_COMPARABLE
            one = (
                price(sums.input_tokens / known, sums.cached_input_tokens / known, sums.output_tokens / known)
                if usable
                else None
            )
            if one is None:
                left_out += sums.calls
                continue
            groups.append((known, *one))
            actual += sums.cost_nusd
            left_out += sums.tokens_unknown
        return cls(groups, actual, left_out)

    def realised(self, baseline: str, output_ratio: float = 1.0) -> Realised | None:
        """Against a baseline that writes so many times the output; None when nothing compares."""
        other = sum(round((one + output * (output_ratio - 1)) * n) for n, one, output in self.groups)
        calls = sum(n for n, *_ in self.groups)
        return Realised(baseline, self.actual_nusd, other, calls, self.left_out) if calls else None
