"""Replay with more than two models: the area under the hull of quality over cost, beside the best single model.

References:
    RouterBench (arXiv 2403.12031) for AIQ and the zero-router.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tierlight.routing.learn import expected_many, priors

from .replay import Floats, Outcomes

AIQ_STEPS: Final = 400


@dataclass(frozen=True)
class ManyReplay:
    """All models of a set at once: area under the quality-cost hull, and the best single model beside it."""

    name: str
    n: int
    best_single: str
    best_single_quality: float
    zero_router_aiq: float
    aiq: dict[str, float]
    best_quality: dict[str, float]
    cost_at_best_single: dict[
        str, float | None
    ]  # share of the best single's cost at its quality, None = never


def replay_many(outcomes: Outcomes, rows: NDArray[np.float32]) -> ManyReplay:
    """Sweep the price of cost from nothing to everything for each way of estimating quality."""
    judged = outcomes.fold >= 0
    quality, cost = outcomes.quality[judged], outcomes.cost[judged]
    estimates = {name: np.full(outcomes.quality.shape, np.nan) for name in ("task prior", "prior + kNN")}
    segments = np.asarray(outcomes.segments, dtype=object)
    for fold in np.unique(outcomes.fold[judged]):
        test, train = outcomes.fold == fold, outcomes.fold != fold
        weights = np.ones(int(train.sum()))
        estimates["task prior"][test] = priors(
            segments[train], outcomes.quality[train], weights, segments[test]
        )
        estimates["prior + kNN"][test] = expected_many(
            rows[train], segments[train], outcomes.quality[train], weights, rows[test], segments[test]
        )
    estimates = {name: values[judged] for name, values in estimates.items()}
    estimates["oracle"] = quality
    mean_quality, mean_cost = quality.mean(axis=0), cost.mean(axis=0)
    best = int(mean_quality.argmax())
    span = (float(mean_cost.min()), float(mean_cost.max()))
    aiq, reached, share = {}, {}, {}
    for name, values in estimates.items():
        points = sweep(values, quality, cost, float(mean_cost[best]))
        aiq[name] = hull_area(points, span)
        reached[name] = float(points[:, 1].max())
        enough = points[points[:, 1] >= mean_quality[best] - 1e-12]
        share[name] = float(enough[:, 0].min() / mean_cost[best]) if len(enough) else None
    return ManyReplay(
        name=outcomes.name,
        n=len(quality),
        best_single=outcomes.models[best],
        best_single_quality=float(mean_quality[best]),
        zero_router_aiq=hull_area(np.stack([mean_cost, mean_quality], axis=1), span),
        aiq=aiq,
        best_quality=reached,
        cost_at_best_single=share,
    )


def sweep(estimate: Floats, quality: Floats, cost: Floats, scale: float) -> Floats:
    """Mean cost and quality of argmax(estimate - lambda cost/scale), for lambda 0 and 60 steps from 1e-3 to 1e3."""
    points = []
    each = np.arange(len(quality))
    for price in (0.0, *np.geomspace(1e-3, 1e3, 60)):
        chosen = (estimate - price * cost / scale).argmax(axis=1)
        points.append((cost[each, chosen].mean(), quality[each, chosen].mean()))
    return np.array(points)


def hull_area(points: Floats, span: tuple[float, float]) -> float:
    """Mean height of the non-decreasing upper hull of (cost, quality) points over 400 even steps of the span."""
    hull: list[tuple[float, float]] = []
    for x, y in sorted(map(tuple, points)):
        if hull and y <= hull[-1][1]:
            continue
        while len(hull) > 1 and (hull[-1][1] - hull[-2][1]) * (x - hull[-2][0]) <= (y - hull[-2][1]) * (
            hull[-1][0] - hull[-2][0]
        ):
            hull.pop()
        if hull and hull[-1][0] == x:
            hull.pop()
        hull.append((x, y))
    xs, ys = zip(*hull, strict=True)
    return float(np.interp(np.linspace(*span, AIQ_STEPS), xs, ys).mean())
