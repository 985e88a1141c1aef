"""What a routing would have cost and been worth on prompts that several models have answered.

For a pair (weak, strong) the prompts are sorted by falling score of a router and the first m go to the strong model:

    x_m = m/n    PGR_m = (Q_m - Q_0) / (Q_n - Q_0)    APGR = integral of PGR over x (random 0.5, can exceed 1)

Everything is out of fold: no prompt is scored by a router that has seen its outcome.

References:
    RouteLLM (arXiv 2406.18665) for PGR, APGR, CPT; RouterBench (arXiv 2403.12031) for AIQ and the zero-router.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tierlight.routing.complexity import complexity
from tierlight.routing.learn import KNN_SHARE, RIDGE_SHARE, Ridge, neighbours, priors
from tierlight.routing.shape import Shaping, shape_of, shape_rows

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FOLDS: Final = 5
RANDOM_RUNS: Final = 100
RESAMPLES: Final = 1000
GAP_KEPT: Final = 0.95
SIMPLE_SHARE: Final = 0.8
_CELLS_AT_ONCE: Final = 1_000_000
LEARNED: Final = "learned"  # what the SDK's learned router computes: prior + 0.5 kNN + 0.5 ridge


@dataclass(frozen=True)
class Outcomes:
    """Prompts that every model answered: `quality` and `cost` are prompts x models, cost NaN where unknown.

    `fold` names the fold in which a prompt is judged, -1 for prompts that only train.
    """

    name: str
    models: tuple[str, ...]
    texts: tuple[str, ...]
    segments: tuple[str, ...]
    quality: Floats
    cost: Floats
    fold: Ints

    @property
    def n(self) -> int:
        """Prompts that are judged."""
        return int((self.fold >= 0).sum())


def random_folds(n: int) -> Ints:
    """Five folds that are the same in every run."""
    return np.random.default_rng(0).integers(0, FOLDS, n)


@dataclass(frozen=True)
class Curve:
    """Quality and cost as m = 0..n of the prompts go to the strong model; `pgr` is None with tiers upside down."""

    quality: Floats
    cost: Floats
    pgr: Floats | None

    @property
    def apgr(self) -> float | None:
        """The mean share of the quality gap that is recovered; random routing has 0.5."""
        return None if self.pgr is None else float(np.trapezoid(self.pgr, dx=1 / (len(self.pgr) - 1)))

    def cpt(self, share: float) -> float | None:
        """The least share of strong calls that recovers this much of the gap, None if it never does."""
        if self.pgr is None:
            return None
        reached = np.flatnonzero(self.pgr >= share - 1e-12)
        return int(reached[0]) / (len(self.pgr) - 1) if len(reached) else None

    @property
    def saving(self) -> float | None:
        """What is saved against always-strong at 95 % of the gap; can be negative."""
        share = self.cpt(GAP_KEPT)
        if share is None or not np.isfinite(self.cost).all() or not self.cost[-1]:
            return None
        return float(1 - self.cost[round(share * (len(self.cost) - 1))] / self.cost[-1])

    @property
    def cost_apgr(self) -> float | None:
        """APGR over the share of the cost gap in place of the share of calls."""
        span = self.cost[-1] - self.cost[0]
        if self.pgr is None or not np.isfinite(self.cost).all() or not span:
            return None
        return float(np.trapezoid(self.pgr, (self.cost - self.cost[0]) / span))


def curve(scores: Floats, quality: Floats, cost: Floats, seed: int = 0) -> Curve:
    """The curve of a router by its scores; prompts with equal scores go in random order.

    Args:
        quality, cost: two columns, weak and strong.
    """
    order = _order(scores, seed)
    return _curve_in(order, quality, cost)


def _order(scores: Floats, seed: int) -> Ints:
    shuffled = np.random.default_rng(seed).permutation(len(scores))
    order: Ints = shuffled[np.argsort(-scores[shuffled], kind="stable")]
    return order


def _curve_in(order: Ints, quality: Floats, cost: Floats) -> Curve:
    n = len(order)

    def mix(values: Floats) -> Floats:
        gains = (values[:, 1] - values[:, 0])[order]
        mixed: Floats = np.concatenate([[0.0], np.cumsum(gains)]) / n + values[:, 0].mean()
        return mixed

    q = mix(quality)
    gap = quality[:, 1].mean() - quality[:, 0].mean()
    return Curve(q, mix(cost), (q - q[0]) / gap if n and gap > 1e-12 else None)


# ---- routers to compare ---------------------------------------------------------------------------------


def router_scores(outcomes: Outcomes, rows: NDArray[np.float32], weak: int, strong: int) -> dict[str, Floats]:
    """Each router's score per prompt (high = send to the strong model), out of fold; NaN where a prompt only trains."""
    gap = (outcomes.quality[:, strong] - outcomes.quality[:, weak])[:, None]
    prior, knn, ridge = (np.full(len(gap), np.nan) for _ in range(3))
    segments = np.asarray(outcomes.segments, dtype=object)
    shapes = shape_rows([shape_of(text) if text else () for text in outcomes.texts])
    for fold in np.unique(outcomes.fold[outcomes.fold >= 0]):
        test, train = outcomes.fold == fold, outcomes.fold != fold
        weights = np.ones(int(train.sum()))
        prior[test] = priors(segments[train], gap[train], weights, segments[test])[:, 0]
        mean = gap[train].mean()
        knn[test] = neighbours(rows[train], gap[train], weights, rows[test])[:, 0] - mean
        shaping = Shaping.fit(shapes[train])
        fitted = Ridge.fit(shaping.rows(rows[train], shapes[train]), gap[train])
        ridge[test] = fitted.expected(shaping.rows(rows[test], shapes[test]))[:, 0] - mean
    return {
        "prompt length": np.array([float(len(text)) for text in outcomes.texts]),
        "complexity heuristic": np.array([complexity(text) for text in outcomes.texts]),
        "task prior": prior,
        "kNN": knn,
        "prior + kNN": prior + KNN_SHARE * knn,
        LEARNED: prior + KNN_SHARE * knn + RIDGE_SHARE * ridge,
        "oracle": gap[:, 0],
    }


@dataclass(frozen=True)
class Row:
    """The figures of one router on one pair; None = undefined, never 0."""

    router: str
    apgr: float | None
    apgr_low: float | None = None
    apgr_high: float | None = None
    cpt50: float | None = None
    cpt80: float | None = None
    saving: float | None = None
    saving_low: float | None = None
    saving_high: float | None = None
    cost_apgr: float | None = None
    max_pgr: float | None = None


@dataclass(frozen=True)
class PairReplay:
    """A pair of models on one set: the plain choices, random, every router, and what it comes to."""

    name: str
    weak: str
    strong: str
    n: int
    weak_quality: float
    strong_quality: float
    weak_cost: float | None
    strong_cost: float | None
    random_apgr: float | None
    random_sd: float | None
    rows: tuple[Row, ...]
    curves: dict[str, Curve]
    verdicts: tuple[str, ...]

    def row(self, router: str) -> Row:
        """The figures of one router."""
        return next(one for one in self.rows if one.router == router)


def replay_pair(
    outcomes: Outcomes,
    rows: NDArray[np.float32],
    weak: str,
    strong: str,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    margin: float = 0.02,
    extra: dict[str, Floats] | None = None,
) -> PairReplay:
    """Compare routers on the judged prompts of a set.

    Args:
        rows: the prompts' vectors.
        margin: loss of quality that a plain downgrade may have.
        extra: scores of more routers, one per prompt of the set.
    """
    w, s = outcomes.models.index(weak), outcomes.models.index(strong)
    judged = outcomes.fold >= 0
    quality, cost = outcomes.quality[judged][:, [w, s]], outcomes.cost[judged][:, [w, s]]
    scores = {**router_scores(outcomes, rows, w, s), **(extra or {})}
    table, curves = [], {}
    for name, values in scores.items():
        made = curve(values[judged], quality, cost, seed)
        curves[name] = made
        table.append(_with_intervals(_row(name, made), values[judged], quality, cost, seed, resamples))
    runs = [curve(np.zeros(len(quality)), quality, cost, 1000 + n).apgr for n in range(RANDOM_RUNS)]
    known = [one for one in runs if one is not None]
    replayed = PairReplay(
        name=outcomes.name,
        weak=weak,
        strong=strong,
        n=len(quality),
        weak_quality=float(quality[:, 0].mean()),
        strong_quality=float(quality[:, 1].mean()),
        weak_cost=_finite(cost[:, 0].mean()),
        strong_cost=_finite(cost[:, 1].mean()),
        random_apgr=float(np.mean(known)) if known else None,
        random_sd=float(np.std(known)) if known else None,
        rows=tuple(table),
        curves=curves,
        verdicts=(),
    )
    return replace(replayed, verdicts=_verdicts(replayed, margin))


def _row(name: str, made: Curve) -> Row:
    return Row(
        name,
        made.apgr,
        cpt50=made.cpt(0.5),
        cpt80=made.cpt(0.8),
        saving=made.saving,
        cost_apgr=made.cost_apgr,
        max_pgr=None if made.pgr is None else float(made.pgr.max()),
    )


def _with_intervals(
    row: Row, scores: Floats, quality: Floats, cost: Floats, seed: int, resamples: int
) -> Row:
    """Percentile intervals of APGR and saving over resampled prompts that keep the router's own order."""
    if row.apgr is None or resamples < 2:
        return row
    rng, order = np.random.default_rng(seed), _order(scores, seed)
    n = len(order)
    gain, extra = (quality[:, 1] - quality[:, 0])[order], (cost[:, 1] - cost[:, 0])[order]
    weak_cost = cost[order, 0]
    apgr, saving = [], []
    for start in range(0, resamples, max(1, _CELLS_AT_ONCE // n)):
        count = min(max(1, _CELLS_AT_ONCE // n), resamples - start)
        drawn = np.sort(rng.integers(0, n, (count, n)), axis=1)
        kept = np.cumsum(gain[drawn], axis=1)
        fine = kept[:, -1] > 1e-12 * n
        share = kept[fine] / kept[fine, -1:]
        apgr.append((share.sum(axis=1) - 0.5) / n)
        if row.saving is not None:
            # PGR reaches 1 at the last prompt at the latest, so there is a first place where it is enough.
            least = (share >= GAP_KEPT - 1e-12).argmax(axis=1)
            spent = np.cumsum(extra[drawn[fine]], axis=1)
            base = weak_cost[drawn[fine]].sum(axis=1)
            saving.append(1 - (base + spent[np.arange(len(spent)), least]) / (base + spent[:, -1]))
    low, high = _interval(np.concatenate(apgr))
    saving_low, saving_high = _interval(np.concatenate(saving)) if saving else (None, None)
    return replace(row, apgr_low=low, apgr_high=high, saving_low=saving_low, saving_high=saving_high)


def _interval(values: Floats) -> tuple[float | None, float | None]:
    if len(values) < 2:
        return None, None
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _verdicts(pair: PairReplay, margin: float) -> tuple[str, ...]:
    """What the figures come to, in sentences."""
    if pair.random_apgr is None or pair.random_sd is None:
        return (f"tiers upside down: weak {pair.weak_quality:.3f}, strong {pair.strong_quality:.3f}",)
    said = []
    if pair.strong_quality - pair.weak_quality <= margin:
        said.append(
            f"a plain downgrade beats any routing here: {pair.weak} is within {margin:g} of {pair.strong}"
        )
    usual = [one for one in pair.rows if one.router != "oracle" and one.apgr is not None]
    best = max(usual, key=lambda one: one.apgr or 0.0)
    learned = pair.row(LEARNED).apgr or 0.0
    length, simple = pair.row("prompt length").apgr or 0.0, pair.row("task prior").apgr or 0.0
    if (best.apgr or 0.0) <= 0.5 + 2 * pair.random_sd:
        said.append("within 2 sd of random: no evidence")
    else:
        if length >= learned - pair.random_sd:
            said.append("length alone is as good")
        if simple - 0.5 >= SIMPLE_SHARE * ((best.apgr or 0.0) - 0.5):
            said.append("simple is enough: a fixed target per task reaches 80 % of the best router's gain")
        if not said:
            said.append(
                f"{best.router} earns its keep: APGR {best.apgr:.3f} where random has 0.500 (sd {pair.random_sd:.3f})"
            )
    return tuple(said)
