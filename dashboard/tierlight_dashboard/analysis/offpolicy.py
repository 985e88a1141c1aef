"""What a policy would have been worth on stored calls, of which each was answered by one model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from .replay import Floats, Ints

MIN_EFFECTIVE: Final = 50.0


@dataclass(frozen=True, slots=True)
class PolicyValue:
    """The mean quality that a policy would have had; `value` is None where the calls can't say, `why` says why."""

    value: float | None
    standard_error: float | None
    effective: float
    identifiable_share: float
    why: str = ""


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
    known = np.isfinite(act_prob) & (act_prob > 0) & (act_prob < 1)
    share = float(known.mean()) if len(known) else 0.0
    if not known.any():
        return PolicyValue(None, None, 0.0, share, "not identifiable: deterministic routing")
    each = np.flatnonzero(known)
    hits = chosen[each] == wanted[each]
    weights = np.where(hits, 1 / act_prob[each], 0.0)
    effective = float(weights.sum() ** 2 / (weights**2).sum()) if hits.any() else 0.0
    if effective < MIN_EFFECTIVE:
        return PolicyValue(
            None,
            None,
            effective,
            share,
            f"too few calls agree with the policy: {effective:.0f} of {MIN_EFFECTIVE:.0f} effective",
        )
    values = expected[each, wanted[each]] + weights * (scores[each] - expected[each, chosen[each]])
    return PolicyValue(
        float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))), effective, share
    )
