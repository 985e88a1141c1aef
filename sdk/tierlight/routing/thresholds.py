"""From which expected gap on the strong candidate is asked, by calls of which most were answered by one candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from .learn import MAX_WEIGHT, Estimator, Ridge, ScoredCall, dense_rows, neighbours, priors
from .shape import SHAPE_SCALE, Shape, Shaping, shape_rows

_FOLDS: Final = 5
_RESAMPLES: Final = 200


def with_slopes(arm: Estimator, rows: Sequence[int], shapes: Sequence[Shape]) -> Estimator:
    """A candidate with the ridge fitted to these of its calls.

    Args:
        shapes: of all its calls.
    """
    import numpy as np

    known = shape_rows([shapes[n] for n in rows])
    shaping = Shaping.fit(known)
    fitted = Ridge.fit(
        shaping.rows(dense_rows([arm.vectors[n] for n in rows], arm.dimensions), known),
        np.asarray([arm.scores[n] for n in rows])[:, None],
        np.asarray([arm.weights[n] for n in rows]),
    )
    slopes, shaped = fitted.weights[: arm.dimensions, 0], fitted.weights[arm.dimensions :, 0]
    return replace(
        arm,
        slopes=tuple(float(np.float32(one)) for one in slopes),
        intercept=float(-(fitted.centre[:, None] * fitted.weights).sum()),
        shape_slopes=tuple(float(f"{one:.9g}") for one in shaped * SHAPE_SCALE / shaping.spread),
        shape_mean=tuple(float(f"{one:.9g}") for one in shaping.mean),
    )


def gap_estimates(
    calls: Sequence[ScoredCall],
    weak: str,
    strong: str,
    now_ns: int,
    dimensions: int,
    shares: tuple[float, float],
) -> tuple[list[float], list[float]]:
    """Per request: the expected gap by calls of other folds, and what the strong candidate truly gained.

    A request that both answered shows its gain; of one that a single candidate answered the other side is the
    out-of-fold expectation, corrected by 1/act_prob where it was seen (doubly robust).

    Args:
        calls: comparable ones, in an order that does not depend on how they were read.
        shares: of kNN and ridge beside the prior.

    References:
        Dudik, Langford, Li: "Doubly robust policy evaluation and learning" (ICML 2011)
    """
    import numpy as np

    requests: dict[str, dict[str, ScoredCall]] = {}
    for n, call in enumerate(calls):
        requests.setdefault(call.call_id or f"\0{n}", {})[call.target] = call
    answered = list(requests.values())
    first = [next(iter(one.values())) for one in answered]
    rows = dense_rows([call.vector for call in first], dimensions)
    shapes = shape_rows([next((c.shape for c in one.values() if c.shape), ()) for one in answered])
    segments = np.asarray([call.segment for call in first], dtype=object)
    fold = np.random.default_rng(0).integers(0, _FOLDS, len(answered))
    expected = np.full((len(answered), 2), 0.5)
    for side, name in enumerate((weak, strong)):
        seen = np.array([name in one for one in answered])
        scores = np.array([[one[name].score if name in one else 0.0] for one in answered])
        weights = np.array([one[name].weight(now_ns) if name in one else 0.0 for one in answered])
        for number in range(_FOLDS):
            test, train = fold == number, (fold != number) & seen
            if not test.any() or not train.any() or not weights[train].sum():
                continue
            mean = np.average(scores[train], axis=0, weights=weights[train])
            expected[test, side] = priors(segments[train], scores[train], weights[train], segments[test])[
                :, 0
            ]
            if shares[0]:
                knn = neighbours(rows[train], scores[train], weights[train], rows[test])
                expected[test, side] += shares[0] * (knn - mean)[:, 0]
            if shares[1]:
                shaping = Shaping.fit(shapes[train])
                fitted = Ridge.fit(shaping.rows(rows[train], shapes[train]), scores[train], weights[train])
                ridge = fitted.expected(shaping.rows(rows[test], shapes[test]))
                expected[test, side] += shares[1] * (ridge - mean)[:, 0]
    gains = []
    for n, one in enumerate(answered):
        values = []
        for side, name in enumerate((weak, strong)):
            if len(one) > 1 and name in one:
                values.append(one[name].score)
            elif name in one:
                probability = max(one[name].act_prob or 1.0, 1 / MAX_WEIGHT)
                values.append(expected[n, side] + (one[name].score - expected[n, side]) / probability)
            else:
                values.append(float(expected[n, side]))
        gains.append(float(values[1] - values[0]))
    return [float(gap) for gap in expected[:, 1] - expected[:, 0]], gains


def lowest_sufficient_threshold(gaps: Sequence[float], gains: Sequence[float], wanted: float) -> float | None:
    """The largest gap whose calls, sent to the strong candidate, keep this share of its gain.

    The share has to hold at the lower 95 % bound of 200 resamples. None when no threshold does.
    """
    import numpy as np

    order = np.argsort(-np.asarray(gaps), kind="stable")
    sorted_gaps, sorted_gains = np.asarray(gaps)[order], np.asarray(gains)[order]
    rng = np.random.default_rng(0)
    counts = rng.multinomial(len(order), np.full(len(order), 1 / len(order)), size=_RESAMPLES)
    kept = np.cumsum(counts * sorted_gains, axis=1)
    totals = kept[:, -1:]
    share = np.where(totals > 0, kept / np.where(totals > 0, totals, 1.0), -np.inf)
    # Only the last of equal gaps can be told from the next one by a threshold.
    ends = np.append(sorted_gaps[:-1] > sorted_gaps[1:], True)
    enough = np.flatnonzero((np.quantile(share, 0.05, axis=0) >= wanted) & ends)
    return float(sorted_gaps[enough[0]]) if len(enough) else None


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which this share of them lies."""
    import numpy as np

    return float(np.quantile(values, share)) if len(values) else 0.0
