"""Scored calls in, a learned router out: the same calls, in whatever order, give the same version."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Final

from ..errors import ConfigurationError
from .artefact import LearnedRouter, Mode
from .declared import Route
from .learn import KNN_SHARE, RIDGE_SHARE, Estimator, ScoredCall
from .shape import Shape
from .thresholds import gap_estimates, lowest_sufficient_threshold, quantile, with_slopes

FEW_CALLS: Final = 50
ENOUGH_CALLS: Final = 200
MOST_CALLS: Final = 5000
USUAL_PGR: Final = 0.95


@dataclass(frozen=True, slots=True)
class Aim:
    """What the threshold is chosen for: this share of the quality gap at its lower bound, or this share of strong calls.

    With more than two candidates, or a goal for the median latency (`slo_ms`), there is no threshold: the weights say
    how much score a cost as high as the dearest candidate's, and a median of twice the goal, are worth.
    """

    target_pgr: float | None = USUAL_PGR
    strong_share: float | None = None
    cost_weight: float = 0.1
    latency_weight: float = 0.1
    slo_ms: float | None = None

    @classmethod
    def of(cls, route: Route) -> Aim:
        """What a policy's learned route aims at."""
        return cls(
            route.target_pgr, route.strong_share, route.cost_weight, route.latency_weight, route.slo_ms
        )


def train(
    route: str,
    calls: Sequence[ScoredCall],
    candidates: Sequence[str],
    *,
    default: str,
    signal: str,
    now_ns: int,
    embedder: str = "hash1",
    dimensions: int = 1024,
    aim: Aim = Aim(),
) -> LearnedRouter:
    """Learn when the strong candidate is worth it (needs numpy).

    Calls that were decided with certainty and have no partner for the same request allow no comparison: they enter
    the priors only. Below 50 comparable calls the router stays on `default`, below 200 it goes by the task alone.

    Args:
        candidates: cheapest first, two or more.
        now_ns: calls halve in weight every 30 days before this.

    Raises:
        ConfigurationError: fewer than two candidates, or numpy is missing.
    """
    if len(candidates) < 2 or default not in candidates:
        raise ConfigurationError(
            f"route {route!r}: two candidates or more with the default among them, got {', '.join(candidates)} and {default!r}"
        )
    ordered = _newest(sorted(calls, key=_identity), candidates)
    paired = _paired(ordered)
    comparable = [call for call in ordered if _is_comparable(call, paired)]
    arms = {
        name: _arm([call for call in ordered if call.target == name], paired, now_ns, dimensions)
        for name in candidates
    }
    costs = {name: _mean_cost([call for call in ordered if call.target == name]) for name in candidates}
    mode: Mode = (
        "default" if len(comparable) < FEW_CALLS else "prior" if len(comparable) < ENOUGH_CALLS else "full"
    )
    reason, threshold = "", None
    if mode == "default":
        reason = f"{len(comparable)} comparable scored calls, at least {FEW_CALLS} are needed"
    elif len(candidates) == 2 and aim.slo_ms is None:
        if mode == "full":
            arms = {
                name: _with_ridge(arm, [call.shape for call in ordered if call.target == name])
                for name, arm in arms.items()
            }
        threshold, reason = _threshold(comparable, arms, candidates, aim, now_ns, dimensions, mode)
        if threshold is None:
            mode = "default"
    router = LearnedRouter(
        route=route,
        signal=signal,
        embedder=embedder,
        dimensions=dimensions,
        candidates=tuple(candidates),
        default=default,
        mode=mode,
        threshold=threshold,
        arms=arms,
        costs=costs,
        comparable=len(comparable),
        calls=len(ordered),
        from_ns=min((call.time_ns for call in ordered), default=0),
        to_ns=max((call.time_ns for call in ordered), default=0),
        reason=reason,
        cost_weight=aim.cost_weight,
        latency_weight=aim.latency_weight,
        slo_ms=aim.slo_ms,
        latencies={
            name: _median_ms([call for call in ordered if call.target == name]) for name in candidates
        },
    )
    return replace(router, version=router.computed_version())


def _identity(call: ScoredCall) -> tuple[Any, ...]:
    vector = json.dumps(sorted(call.vector.items()))
    return (
        call.time_ns,
        call.call_id,
        call.target,
        call.score,
        call.segment,
        hashlib.sha256(vector.encode()).hexdigest(),
        call.shape,
    )


def _newest(ordered: list[ScoredCall], candidates: Sequence[str]) -> list[ScoredCall]:
    """At most 5,000 of each candidate, the newest."""
    kept: list[ScoredCall] = []
    count: dict[str, int] = defaultdict(int)
    for call in reversed(ordered):
        if (
            call.target in candidates
            and math.isfinite(call.score)
            and 0 <= call.score <= 1
            and count[call.target] < MOST_CALLS
        ):
            count[call.target] += 1
            kept.append(call)
    return kept[::-1]


def _paired(calls: Sequence[ScoredCall]) -> set[str]:
    """Ids of the requests that more than one candidate answered."""
    answered: dict[str, set[str]] = defaultdict(set)
    for call in calls:
        if call.call_id:
            answered[call.call_id].add(call.target)
    return {call_id for call_id, targets in answered.items() if len(targets) > 1}


def _is_comparable(call: ScoredCall, paired: set[str]) -> bool:
    return call.call_id in paired or (call.act_prob is not None and 0 < call.act_prob < 1)


def _weight(call: ScoredCall, paired: set[str], now_ns: int) -> float:
    # Both sides of a pair were seen for certain, whatever the chance of the first.
    return (replace(call, act_prob=None) if call.call_id in paired else call).weight(now_ns)


def _arm(calls: Sequence[ScoredCall], paired: set[str], now_ns: int, dimensions: int) -> Estimator:
    return Estimator(
        vectors=tuple(call.vector if _is_comparable(call, paired) else {} for call in calls),
        segments=tuple(call.segment for call in calls),
        scores=tuple(call.score for call in calls),
        weights=tuple(_weight(call, paired, now_ns) for call in calls),
        dimensions=dimensions,
        costs=tuple(math.nan if call.cost_usd is None else call.cost_usd for call in calls),
    )


def _with_ridge(arm: Estimator, shapes: Sequence[Shape]) -> Estimator:
    rows = [n for n, vector in enumerate(arm.vectors) if vector]
    return with_slopes(arm, rows, shapes) if len(rows) >= FEW_CALLS else arm


def _mean_cost(calls: Sequence[ScoredCall]) -> float | None:
    known = [call.cost_usd for call in calls if call.cost_usd is not None]
    return math.fsum(known) / len(known) if known else None


def _median_ms(calls: Sequence[ScoredCall]) -> float | None:
    known = [call.latency_ms for call in calls if call.latency_ms is not None]
    return median(known) if known else None


def since_changes(calls: Sequence[ScoredCall], changed_ns: Mapping[str, int]) -> list[ScoredCall]:
    """The calls that still tell what their candidate is like: those before its quality changed do not.

    Args:
        changed_ns: when it changed, by candidate, for those with an open quality alert.
    """
    return [call for call in calls if call.time_ns >= changed_ns.get(call.target, 0)]


def _threshold(
    comparable: Sequence[ScoredCall],
    arms: dict[str, Estimator],
    candidates: Sequence[str],
    aim: Aim,
    now_ns: int,
    dimensions: int,
    mode: Mode,
) -> tuple[float | None, str]:
    """The bound on the expected gap above which the strong candidate is asked, or None and why there is none."""
    shares = (KNN_SHARE, RIDGE_SHARE) if mode == "full" else (0.0, 0.0)
    gaps, gains = gap_estimates(comparable, candidates[0], candidates[1], now_ns, dimensions, shares)
    if aim.strong_share is not None:
        return quantile(
            gaps, 1 - aim.strong_share
        ), f"asks {candidates[1]} for {aim.strong_share:.0%} of the calls"
    wanted = aim.target_pgr if aim.target_pgr is not None else USUAL_PGR
    if math.fsum(gains) <= 0:
        return None, f"tiers upside down: {candidates[0]} is as good as {candidates[1]} on these calls"
    found = lowest_sufficient_threshold(gaps, gains, wanted)
    if found is None:
        return None, f"no threshold keeps {wanted:.0%} of the quality gap at its lower 95 % bound"
    return found, f"keeps {wanted:.0%} of the quality gap at its lower 95 % bound"
