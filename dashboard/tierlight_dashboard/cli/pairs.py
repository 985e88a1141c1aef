"""Requests that both ends of a route answered: shadows, and the escalations of a cascade."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tierlight.routing.learn import ScoredCall
from tierlight_dashboard.analysis.replay import Floats, Ints, Outcomes, random_folds

from .evidence import RouteEvidence


@dataclass(frozen=True)
class Pairs:
    """Requests that both ends answered; `both` are the places of the weak and the strong call, `text` of the prompt.

    A pair weighs one over the chance with which it became one: a shadow's share, or 1 where a cascade escalated.
    `drawn` is a resample by these weights, for figures that know no weights.
    """

    ids: tuple[str, ...]
    both: Ints
    text: tuple[int, ...]
    weights: Floats
    drawn: Ints
    arms: tuple[str, str]
    last: int  # the strong arm's place among all
    is_escalated_only: bool

    @classmethod
    def of(cls, found: RouteEvidence, arms: Sequence[str], seed: int) -> Pairs | None:
        """The pairs among the calls; None below two of them."""
        weak, strong = arms[0], arms[-1]
        by_request: dict[str, dict[str, int]] = {}
        for n, call in enumerate(found.calls):
            if call.call_id:
                by_request.setdefault(call.call_id, {})[call.target] = n
        ids = [name for name, one in by_request.items() if weak in one and strong in one]
        if weak == strong or len(ids) < 2:
            return None
        both = np.array([[by_request[one][weak], by_request[one][strong]] for one in ids])
        text = tuple(
            next((int(n) for n in two if found.calls[n].vector or found.texts[n]), int(two[0]))
            for two in both
        )
        weights = np.array([1 / found.shadows.get(one, 1.0) for one in ids])
        drawn = np.arange(len(ids))
        if np.ptp(weights):
            drawn = np.random.default_rng(seed).choice(len(ids), len(ids), p=weights / weights.sum())
        is_escalated_only = not any(one in found.shadows for one in ids)
        return cls(tuple(ids), both, text, weights, drawn, (weak, strong), len(arms) - 1, is_escalated_only)

    @property
    def effective(self) -> float:
        """How many equally weighted pairs they are worth."""
        return float(self.weights.sum() ** 2 / (self.weights**2).sum())

    @property
    def evidence(self) -> str:
        return "escalated pairs" if self.is_escalated_only else "shadow pairs"

    def outcomes(self, found: RouteEvidence, name: str) -> Outcomes:
        """The pairs as a set to replay; what is drawn twice stays in one fold."""
        return Outcomes(
            name=name,
            models=self.arms,
            texts=tuple(found.texts[self.text[n]] for n in self.drawn),
            segments=tuple(found.calls[self.text[n]].segment for n in self.drawn),
            quality=self.table(found, lambda call: call.score)[self.drawn],
            cost=self.table(found, cost_of)[self.drawn],
            fold=random_folds(len(self.ids))[self.drawn],
        )

    def sides(self, wanted: Ints) -> Ints | None:
        """Which end a policy asks for each pair, 1 = the strong one; None where it asks a third candidate."""
        mine = wanted[list(self.text)]
        return (mine == self.last).astype(int) if np.isin(mine, (0, self.last)).all() else None

    def table(self, found: RouteEvidence, value: Callable[[ScoredCall], float]) -> Floats:
        """Pairs x (weak, strong)."""
        return np.array([[value(found.calls[n]) for n in two] for two in self.both], dtype=float)


def cost_of(call: ScoredCall) -> float:
    """What a call cost, NaN where that is unknown."""
    return float("nan") if call.cost_usd is None else call.cost_usd
