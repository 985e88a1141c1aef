"""How good each candidate would be at a prompt, from the user's own scored calls: a shrunken task prior, kNN, ridge.

    prior_a(t) = (sum w q + s g_a) / (sum w + s)        over the calls of candidate a in task t, g_a its mean
    q_a(x, t)  = prior_a(t) + 0.5 (knn_a(x) - g_a) + 0.5 (ridge_a(x) - g_a)        the last with two candidates only

knn_a is the mean of the 40 nearest calls by cosine, ridge_a a line fitted to all of them, over the prompt's vector and
its shape (length, complexity, numbers). Ridge costs one product at the time of deciding and, out of fold on public
sets, leaves MMLU, ZeroEval and LLMRouter within a standard deviation while GSM8K rises from .595 to .615, with the
shape to .623 (.633 with minilm1); the shape loses nowhere, whichever embedder (2026-11). Up to about 200 calls the
prior alone is as good.

References:
    "Rethinking predictive modeling for LLM routing: when simple kNN beats complex learned routers" (arXiv 2505.12601)
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from .embed import Vector
from .shape import Shape

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Matrix = NDArray[np.float32]

SHRINK: Final = 5.0
NEIGHBOURS: Final = 40
SHARPNESS: Final = 10.0
KNN_SHARE: Final = 0.5
RIDGE_SHARE: Final = 0.5
HALF_LIFE_DAYS: Final = 30.0
MAX_WEIGHT: Final = 10.0
MOST_WITHOUT_NUMPY: Final = 500
_ROWS_AT_ONCE: Final = 512
_DAY_NS: Final = 86_400_000_000_000


@dataclass(frozen=True, slots=True)
class ScoredCall:
    """One stored call with the score that the route learns from.

    Args:
        target: the candidate that answered.
        score: 0 to 1.
        vector: of its prompt; empty = not known, it then counts for its task only.
        shape: of its prompt; empty = not known, it then counts as the mean.
        act_prob: probability with which the policy chose this target; None or 1.0 allows no comparison.
        call_id: the same for calls that answer the same request (shadow, escalation): they are a pair.
    """

    target: str
    score: float
    vector: Vector
    segment: str = ""
    act_prob: float | None = None
    keep_prob: float | None = None
    time_ns: int = 0
    call_id: str = ""
    cost_usd: float | None = None
    latency_ms: float | None = None
    shape: Shape = ()

    def weight(self, now_ns: int) -> float:
        """Halved every 30 days; raised for a rare choice and for calls that sampling left out."""
        age_days = max(0, now_ns - self.time_ns) / _DAY_NS
        chosen = min(MAX_WEIGHT, 1 / self.act_prob) if self.act_prob else 1.0
        return float(2 ** (-age_days / HALF_LIFE_DAYS) * chosen / (self.keep_prob or 1.0))


@dataclass(frozen=True)
class Estimator:
    """Expected scores and costs of one candidate, from the calls that it answered: parallel sequences, a place a call.

    Rows with an empty vector enter the prior alone. `costs` are US dollars; empty, or NaN at a place, is unknown.
    """

    vectors: tuple[Vector, ...]
    segments: tuple[str, ...]
    scores: tuple[float, ...]
    weights: tuple[float, ...]
    dimensions: int = 1024
    slopes: tuple[float, ...] = ()  # of the ridge, one a dimension; empty = no ridge
    intercept: float = 0.0  # of the ridge less the mean, at the zero vector
    costs: tuple[float, ...] = ()
    shape_slopes: Shape = ()
    shape_mean: Shape = ()

    @cached_property
    def mean(self) -> float:
        """The weighted mean of all scores; 0.5 where there are none."""
        total = math.fsum(self.weights)
        return (
            math.fsum(w * q for w, q in zip(self.weights, self.scores, strict=True)) / total if total else 0.5
        )

    @cached_property
    def _tasks(self) -> dict[str, float]:
        sums: dict[str, list[float]] = {}
        for segment, score, weight in zip(self.segments, self.scores, self.weights, strict=True):
            one = sums.setdefault(segment, [0.0, 0.0])
            one[0] += weight * score
            one[1] += weight
        return {
            name: (total + SHRINK * self.mean) / (weight + SHRINK) for name, (total, weight) in sums.items()
        }

    def prior(self, segment: str) -> float:
        """What the task alone says."""
        return self._tasks.get(segment, self.mean)

    @cached_property
    def mean_cost(self) -> float | None:
        """The weighted mean of the known costs; None where none is known."""
        known = [
            (w, c) for w, c in zip(self.weights, self.costs, strict=False) if c == c
        ]  # NaN is not itself
        total = math.fsum(w for w, _ in known)
        return math.fsum(w * c for w, c in known) / total if total else None

    def expected(self, vector: Vector | Point, segment: str, shape: Shape = ()) -> float:
        """The expected score of this candidate at a prompt; outside 0..1 where neighbours pull hard."""
        return self.outlook(vector, segment, shape)[0]

    def outlook(self, vector: Vector | Point, segment: str, shape: Shape = ()) -> tuple[float, float | None]:
        """Expected score and cost at a prompt; the cost is that of the same neighbours, or else the mean."""
        expected, cost = self.prior(segment), self.mean_cost
        if shape and self.shape_slopes:
            terms = zip(self.shape_slopes, shape, self.shape_mean, strict=True)
            expected += RIDGE_SHARE * sum(slope * (one - mean) for slope, one, mean in terms)
        if not isinstance(vector, Point) and not vector:
            return expected, cost
        point = vector if isinstance(vector, Point) else Point.of(vector)
        if point is not None and self._columns is not None:
            pull, near_cost = self._pull(point)
            return expected + pull, cost if near_cost is None else near_cost
        if isinstance(vector, Point):
            raise TypeError("a point needs numpy, which was there when it was made")
        if self.slopes:
            slopes = self.slopes
            line = sum(slopes[index] * value for index, value in vector.items())
            expected += RIDGE_SHARE * (self.intercept + line)
        nearest = self._nearest(vector)
        if nearest:
            top = max(cosine for cosine, _ in nearest)
            weighed = [
                (self.weights[row] * math.exp(SHARPNESS * (cosine - top)), row) for cosine, row in nearest
            ]
            total = math.fsum(weight for weight, _ in weighed)
            if total:
                knn = math.fsum(weight * self.scores[row] for weight, row in weighed) / total
                expected += KNN_SHARE * (knn - self.mean)
                if self.costs:
                    near = math.fsum(weight * self.costs[row] for weight, row in weighed) / total
                    cost = near if near == near else cost
        return expected, cost

    @cached_property
    def _rows(self) -> tuple[int, ...]:
        return tuple(row for row, vector in enumerate(self.vectors) if vector)

    def _nearest(self, vector: Vector) -> list[tuple[float, int]]:
        rows = self._rows[-MOST_WITHOUT_NUMPY:]
        k = _neighbours_of(len(self._rows))
        if k < 1:
            return []
        sums = [0.0] * len(rows)
        postings = self._postings
        for index, value in vector.items():
            for place, other in postings.get(index, ()):
                sums[place] += value * other
        best = heapq.nlargest(min(k, len(rows)), range(len(rows)), key=sums.__getitem__)
        return [(sums[place], rows[place]) for place in best]

    @cached_property
    def _postings(self) -> dict[int, list[tuple[int, float]]]:
        found: dict[int, list[tuple[int, float]]] = {}
        for place, row in enumerate(self._rows[-MOST_WITHOUT_NUMPY:]):
            for index, value in self.vectors[row].items():
                found.setdefault(index, []).append((place, value))
        return found

    # ---- the same by numpy: one column a call, so that a sparse prompt reads only the rows that it names

    def _pull(self, point: Point) -> tuple[float, float | None]:
        """What neighbours and ridge add to the prior, and what the neighbours cost (None = not all known)."""
        assert self._columns is not None
        matrix, weights, scores, slopes, costs = self._columns
        pull = RIDGE_SHARE * (self.intercept + float(point.times(slopes))) if self.slopes else 0.0
        k = _neighbours_of(matrix.shape[1])
        if k < 1:
            return pull, None
        cosines = point.times(matrix)
        best = cosines.argpartition(-k)[-k:] if k < len(cosines) else slice(None)
        near = cosines[best].astype(float)
        mass = weights[best] * _exp(SHARPNESS * (near - near.max()))
        total = float(mass.sum())
        if not total:
            return pull, None
        cost = float(mass @ costs[best]) / total if costs is not None else math.nan
        return pull + KNN_SHARE * (float(mass @ scores[best]) / total - self.mean), (
            cost if cost == cost else None
        )

    @cached_property
    def _columns(self) -> tuple[Any, Any, Any, Any, Any] | None:
        try:
            import numpy as np
        except ImportError:
            return None
        rows = list(self._rows)
        matrix = np.ascontiguousarray(dense_rows([self.vectors[row] for row in rows], self.dimensions).T)
        return (
            matrix,
            np.array([self.weights[row] for row in rows]),
            np.array([self.scores[row] for row in rows]),
            np.array(self.slopes, dtype=np.float32),
            np.array([self.costs[row] for row in rows]) if self.costs else None,
        )


def _neighbours_of(rows: int) -> int:
    return NEIGHBOURS if rows >= NEIGHBOURS else rows - 1


def _exp(values: Any) -> Any:
    import numpy as np

    return np.exp(values)


@dataclass(frozen=True, slots=True)
class Point:
    """A prompt's vector as arrays, made once for all candidates. `places` is None where every place is there."""

    places: Any
    values: Any

    @classmethod
    def of(cls, vector: Vector) -> Point | None:
        """A sparse vector as a point; None without numpy."""
        try:
            import numpy as np
        except ImportError:
            return None
        count = len(vector)
        return cls(
            np.fromiter(vector.keys(), np.intp, count), np.fromiter(vector.values(), np.float32, count)
        )

    def times(self, columns: Any) -> Any:
        """Its product with a matrix of one column a call."""
        return self.values @ (columns if self.places is None else columns[self.places])


# ---- many prompts at once: training and replay ----------------------------------------------------------


def priors(segments: Sequence[str], values: Floats, weights: Floats, asked: Sequence[str]) -> Floats:
    """The shrunken task means of each column of `values` (calls x candidates), one row per asked segment."""
    import numpy as np

    mean = np.average(values, axis=0, weights=weights)
    names, codes = np.unique(np.asarray(segments, dtype=object).astype(str), return_inverse=True)
    mass = np.bincount(codes, weights=weights, minlength=len(names))
    sums = np.stack(
        [np.bincount(codes, weights=weights * column, minlength=len(names)) for column in values.T], axis=1
    )
    shrunk = (sums + SHRINK * mean) / (mass + SHRINK)[:, None]
    place = {str(name): n for n, name in enumerate(names)}
    found: Floats = np.stack([shrunk[place[one]] if one in place else mean for one in asked])
    return found


def neighbours(rows: Matrix, values: Floats, weights: Floats, asked: Matrix) -> Floats:
    """The kNN mean of each column of `values` at each asked row; the plain mean where there are too few rows."""
    import numpy as np

    k = _neighbours_of(len(rows))
    if k < 1:
        return np.tile(np.average(values, axis=0, weights=weights), (len(asked), 1))
    found = np.empty((len(asked), values.shape[1]))
    for start in range(0, len(asked), _ROWS_AT_ONCE):
        cosines = asked[start : start + _ROWS_AT_ONCE] @ rows.T
        best = np.argpartition(cosines, -k, axis=1)[:, -k:]
        near = np.take_along_axis(cosines, best, axis=1).astype(np.float64)
        mass = weights[best] * np.exp(SHARPNESS * (near - near.max(axis=1, keepdims=True)))
        found[start : start + len(cosines)] = np.einsum("ij,ijm->im", mass, values[best]) / mass.sum(
            axis=1, keepdims=True
        )
    return found


def expected_many(
    rows: Matrix,
    segments: Sequence[str],
    values: Floats,
    weights: Floats,
    asked: Matrix,
    asked_segments: Sequence[str],
) -> Floats:
    """Prior and kNN of every asked prompt and candidate, for calls that every candidate answered.

    Without the ridge, which helps with the gap between two candidates and hurts the choice among many (AIQ of
    ZeroEval's eight models .886 with, .900 without, zero-router .893).
    """
    import numpy as np

    mean = np.average(values, axis=0, weights=weights)
    knn = neighbours(rows, values, weights, asked) - mean
    estimate: Floats = priors(segments, values, weights, asked_segments) + KNN_SHARE * knn
    return estimate


@dataclass(frozen=True)
class Ridge:
    """A linear map from vectors to values, fitted in closed form: score = (x - mu) W + mean."""

    centre: Floats
    weights: Floats
    mean: Floats

    @classmethod
    def fit(
        cls, rows: Matrix, values: Floats, weights: Floats | None = None, penalty: float | None = None
    ) -> Ridge:
        """Fit values (calls x columns) to rows.

        Args:
            weights: of the calls; None = all the same.
            penalty: None takes 10, or 3 below 1,500 rows.
        """
        import numpy as np

        strength = penalty if penalty is not None else (10.0 if len(rows) >= 1500 else 3.0)
        mass = np.ones(len(rows)) if weights is None else weights * len(rows) / weights.sum()
        centre = (mass @ rows) / len(rows)
        mean = (mass @ values) / len(rows)
        root = np.sqrt(mass)[:, None]
        centred = ((rows - centre) * root).astype(np.float32)
        aims = (values - mean) * root
        if len(rows) < rows.shape[1]:  # the same line by the smaller system
            gram = (centred @ centred.T).astype(np.float64) + strength * np.eye(len(rows))
            return cls(centre, centred.T.astype(np.float64) @ np.linalg.solve(gram, aims), mean)
        gram = (centred.T @ centred).astype(np.float64) + strength * np.eye(rows.shape[1])
        return cls(centre, np.linalg.solve(gram, centred.T @ aims), mean)

    def expected(self, rows: Matrix) -> Floats:
        """The values at these rows."""
        found: Floats = (rows - self.centre) @ self.weights + self.mean
        return found


def dense_rows(vectors: Sequence[Vector], dimensions: int) -> Matrix:
    """Sparse vectors as the rows of a matrix."""
    import numpy as np

    matrix = np.zeros((len(vectors), dimensions), dtype=np.float32)
    for row, vector in zip(matrix, vectors, strict=True):
        row[list(vector)] = list(vector.values())
    return matrix
