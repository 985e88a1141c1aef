"""What a policy would have been worth on stored calls: by logged probabilities, or by requests that both ends answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from .replay import Floats, Ints

MIN_EFFECTIVE: Final = 50.0
BY_LOGS: Final = "logged probabilities"
# Each end holds at 95 % by itself: "at least" and "at most" are asked one at a time.
_Z95: Final = 1.6448536


@dataclass(frozen=True, slots=True)
class PolicyValue:
    """The mean quality that a policy would have had; `value` is None where the calls can't say, `why` says why."""

    value: float | None
    standard_error: float | None
    effective: float
    identifiable_share: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean (or a share saved) with an interval of which each end holds at 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Contributions:
    """What each call or pair adds to the value of a policy: the value is their weighted mean."""

    values: Floats
    weights: Floats
    effective: float

    @property
    def mean(self) -> float:
        """The value of the policy."""
        return float(np.average(self.values, weights=self.weights))

    @property
    def standard_error(self) -> float:
        """Of the mean."""
        return _error_of(self.values - self.mean, self.weights)


def doubly_robust(
    chosen: Ints, scores: Floats, act_prob: Floats, expected: Floats, wanted: Ints
) -> PolicyValue:
    """The value of a policy from calls that another one decided with known probabilities.

    v = mean of m_pi(x) + 1{a = pi(x)} / p (y - m_a(x)); calls decided with certainty say nothing and are left out.

    Args:
        chosen, wanted: which candidate answered, and which the policy would have asked.
        expected: out-of-fold expected score, calls x candidates.

    References:
        Dudik, Langford, Li: "Doubly robust policy evaluation and learning" (ICML 2011)
    """
    share = float(is_logged(act_prob).mean()) if len(act_prob) else 0.0
    found = logged_contributions(chosen, scores, act_prob, expected, wanted)
    if found is None:
        return PolicyValue(None, None, 0.0, share, "not identifiable: deterministic routing")
    return policy_value(found, share)


def policy_value(found: Contributions, identifiable_share: float = 1.0) -> PolicyValue:
    """The value of a policy, refused below 50 calls' worth of evidence."""
    if found.effective < MIN_EFFECTIVE:
        why = f"too few calls agree with the policy: {found.effective:.0f} of {MIN_EFFECTIVE:.0f} effective"
        return PolicyValue(None, None, found.effective, identifiable_share, why)
    return PolicyValue(found.mean, found.standard_error, found.effective, identifiable_share)


def is_logged(act_prob: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which calls were decided with a known chance of another choice."""
    with np.errstate(invalid="ignore"):
        found: np.ndarray[tuple[int], np.dtype[np.bool_]] = (
            np.isfinite(act_prob) & (act_prob > 0) & (act_prob < 1)
        )
    return found


def logged_contributions(
    chosen: Ints, outcomes: Floats, act_prob: Floats, expected: Floats, wanted: Ints
) -> Contributions | None:
    """The terms of `doubly_robust`, of scores or of costs; None where no call was decided with a known chance."""
    each = np.flatnonzero(is_logged(act_prob))
    if not len(each):
        return None
    hits = chosen[each] == wanted[each]
    weights = np.where(hits, 1 / act_prob[each], 0.0)
    effective = float(weights.sum() ** 2 / (weights**2).sum()) if hits.any() else 0.0
    values = expected[each, wanted[each]] + weights * (outcomes[each] - expected[each, chosen[each]])
    return Contributions(values, np.ones(len(each)), effective)


def paired_contributions(outcomes: Floats, weights: Floats, wanted: Ints) -> Contributions:
    """The same from requests that every candidate answered.

    Args:
        outcomes: pairs x candidates.
        weights: one over the chance with which a request became a pair.
    """
    effective = float(weights.sum() ** 2 / (weights**2).sum()) if len(weights) else 0.0
    return Contributions(outcomes[np.arange(len(wanted)), wanted], weights, effective)


def difference(new: Contributions, old: Contributions) -> Estimate:
    """How much more the one policy is worth than the other, on the same calls."""
    gains = new.values - old.values
    mean = float(np.average(gains, weights=new.weights))
    return _around(mean, _error_of(gains - mean, new.weights))


def saving(new: Contributions, old: Contributions) -> Estimate | None:
    """The share of the one policy's cost that the other saves, on the same calls; None where that cost nothing."""
    before = old.mean
    if not before > 0:
        return None
    ratio = new.mean / before
    return _around(1 - ratio, _error_of((new.values - ratio * old.values) / before, new.weights))


def _error_of(residuals: Floats, weights: Floats) -> float:
    if len(residuals) < 2:
        return float("inf")
    grown = len(residuals) / (len(residuals) - 1)
    return float(np.sqrt(grown * ((weights * residuals) ** 2).sum()) / weights.sum())


def _around(value: float, error: float) -> Estimate:
    return Estimate(value, value - _Z95 * error, value + _Z95 * error)


# ---- what it comes to --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """A proposed policy against the current one. `may_ship` is False where the evidence can only propose."""

    quality: Estimate
    saving: Estimate | None
    evidence: str
    may_ship: bool
    effective: float


def exit_code(found: PolicyChange | None, margin: float | None, min_saving: float | None) -> int:
    """0 when what was asked for holds, 1 when it does not, 2 when the data can't say.

    >>> steady = PolicyChange(Estimate(0.0, -0.01, 0.01), Estimate(0.4, 0.35, 0.45), "shadow pairs", True, 300)
    >>> [exit_code(steady, margin, 0.3) for margin in (0.02, 0.005, None)]
    [0, 2, 0]
    """
    if found is None or found.effective < MIN_EFFECTIVE:
        return 2
    asked: list[tuple[Estimate | None, float]] = []
    if margin is not None:
        asked.append((found.quality, -margin))
    if min_saving is not None:
        asked.append((found.saving, min_saving))
    if any(one is not None and one.high < bound for one, bound in asked):
        return 1
    holds = all(one is not None and one.low >= bound for one, bound in asked)
    return 0 if holds and found.may_ship else 2


def sentences(found: PolicyChange, share_of_calls: float) -> Sequence[str]:
    """What a comparison says, in words."""
    q, s = found.quality, found.saving
    said = [
        f"proposed against current: quality {100 * q.value:+.1f} pt ({100 * q.low:+.1f} to {100 * q.high:+.1f}), "
        + ("cost unknown" if s is None else f"cost {-s.value:+.0%} ({-s.high:+.0%} to {-s.low:+.0%})")
        + f", by {found.evidence}, effective n {found.effective:.0f}"
    ]
    if share_of_calls < 1 and found.evidence == BY_LOGS:  # a pair speaks for the others by its weight
        said.append(
            f"{1 - share_of_calls:.0%} of the scored calls were decided with certainty and say nothing here"
        )
    if not found.may_ship:
        said.append(
            "these pairs are escalated calls only, the hard ones: they may propose a change, never ship it; "
            "shadow the other model on a share of the other calls (verify_accepted, or a [shadow] table)"
        )
    return said
