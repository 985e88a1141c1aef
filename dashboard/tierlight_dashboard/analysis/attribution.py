"""What goes with a change: when it began, what else changed then, and how much of it is mix, price or size.

These rank hints; none of them claims a cause.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np

from .drift import Floats, mean_interval

LONGEST_WINDOW = 5000
EDGE = 5
ABSENT_SHARE = 1e-9


# ---- when -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """The change lies after call `at` of the window (1-based), within `low`..`high` at likelihood ratio 20."""

    at: int
    low: int
    high: int


def change_point(x: Floats) -> ChangePoint | None:
    """Where the mean of x in [0, 1] changed, by profile likelihood; None for fewer than 10 calls.

    >>> change_point(np.array([1, 1, 1, 1, 1, 0] * 50 + [1, 0] * 30, dtype=float))
    ChangePoint(at=299, low=287, high=309)
    """
    n = len(x)
    if n < 2 * EDGE:
        return None
    k = np.arange(EDGE, n - EDGE + 1)
    left = np.cumsum(x)[k - 1]
    likelihood = _log_likelihood(left, k) + _log_likelihood(x.sum() - left, n - k)
    near = k[likelihood >= likelihood.max() - log(20)]
    return ChangePoint(int(k[np.argmax(likelihood)]), int(near[0]), int(near[-1]))


def _log_likelihood(s: Floats, n: np.ndarray[Any, Any]) -> Floats:
    share = np.clip(s / n, 0.0, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(s > 0, s * np.log(share), 0.0) + np.where(n - s > 0, (n - s) * np.log1p(-share), 0.0)
    return np.asarray(terms, dtype=float)


# ---- what of a mean is mix ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a change; all parts of a decomposition add up to the change."""

    name: str
    effect: float
    low: float | None = None
    high: float | None = None


def split_quality(
    before: Mapping[str, tuple[float, float]], after: Mapping[str, tuple[float, float]]
) -> tuple[Term, ...]:
    """A change of a mean split into mix and change within each group; `before` and `after` give (share, mean).

    A group that is missing on one side takes the other side's mean, so all its effect is mix. The terms add up
    to the difference of the two overall means to rounding.

    >>> before = {"prime": (0.5, 0.976), "composite": (0.5, 0.704)}
    >>> terms = split_quality(before, {"prime": (0.2, 0.024), "composite": (0.8, 0.998)})
    >>> [(term.name, round(term.effect, 4)) for term in terms]
    [('mix', 0.1053), ('within prime', -0.3332), ('within composite', 0.1911)]
    """
    mix, within = 0.0, []
    for name in dict.fromkeys([*before, *after]):
        w0, q0 = before.get(name, (0.0, after.get(name, (0.0, 0.0))[1]))
        w1, q1 = after.get(name, (0.0, q0))
        mix += (w1 - w0) * (q0 + q1) / 2
        within.append(Term(f"within {name}", (w0 + w1) / 2 * (q1 - q0)))
    return (Term("mix", mix), *within)


def grouped(values: Sequence[tuple[str, float]]) -> dict[str, tuple[float, float]]:
    """(share, mean) of each group; empty for no values."""
    sums: dict[str, list[float]] = {}
    for name, x in values:
        entry = sums.setdefault(name, [0.0, 0.0])
        entry[0] += 1
        entry[1] += x
    return {name: (n / len(values), total / n) for name, (n, total) in sums.items()}


def quality_terms(
    before: Sequence[tuple[str, float]], after: Sequence[tuple[str, float]]
) -> tuple[Term, ...]:
    """`split_quality` of single values, the within terms with 95 % intervals of the group's mean after."""
    groups0, groups1 = grouped(before), grouped(after)
    terms = list(split_quality(groups0, groups1))
    for place, term in enumerate(terms):
        name = term.name.removeprefix("within ")
        if place and name in groups0 and name in groups1:
            xs = [x for group, x in after if group == name]
            low, high = mean_interval(len(xs), sum(xs))
            weight = (groups0[name][0] + groups1[name][0]) / 2
            terms[place] = Term(
                term.name, term.effect, weight * (low - groups0[name][1]), weight * (high - groups0[name][1])
            )
    return tuple(terms)


# ---- what of a cost is price ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CostPart:
    """One model and token kind: its share of calls, mean tokens of such a call, and price of one token."""

    share: float
    tokens: float
    price: float

    @property
    def cost(self) -> float:
        return self.share * self.tokens * self.price


def split_cost(before: Mapping[str, CostPart], after: Mapping[str, CostPart]) -> tuple[Term, ...]:
    """A change of cost per call split into share, tokens and price by the log-mean (LMDI-I) identity.

    A part missing on one side has share 1e-9 there and the other side's tokens and price, so that its effect
    lands under share. Parts without cost on either side have none.

    References: Ang (2005), "The LMDI approach to decomposition analysis", Energy Policy 33(7).
    """
    share = tokens = price = 0.0
    for name in dict.fromkeys([*before, *after]):
        a = before.get(name) or _absent(after[name])
        b = after.get(name) or _absent(a)
        if a.cost <= 0 or b.cost <= 0:
            tokens += b.cost - a.cost
            continue
        weight = log_mean(b.cost, a.cost)
        share += weight * log(b.share / a.share)
        tokens += weight * log(b.tokens / a.tokens)
        price += weight * log(b.price / a.price)
    return (Term("share", share), Term("tokens", tokens), Term("price", price))


def log_mean(a: float, b: float) -> float:
    """(a - b) / ln(a / b) of two positive numbers, a itself where they are equal."""
    return a if a == b else (a - b) / log(a / b)


def _absent(other: CostPart) -> CostPart:
    return CostPart(ABSENT_SHARE, other.tokens, other.price)


# ---- what else changed then -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moved:
    """A fact about the calls whose distribution changed: the largest gain and loss, and how much moved (0..1)."""

    what: str
    moved: float
    lost: str
    gained: str


def moved_facts(
    before: Sequence[Any],
    after: Sequence[Any],
    facts: Mapping[str, Callable[[Any], str]],
    least: float = 0.25,
) -> tuple[Moved, ...]:
    """The facts of which at least the share `least` of calls moved to other values, the most moved first."""
    found = []
    for what, value in facts.items():
        old, new = _shares([value(call) for call in before]), _shares([value(call) for call in after])
        if not old or not new:
            continue
        gains = {name: new.get(name, 0.0) - old.get(name, 0.0) for name in {*old, *new}}
        moved = sum(gain for gain in gains.values() if gain > 0)
        if moved >= least:
            lost = min(gains, key=lambda name: (gains[name], name))
            gained = max(gains, key=lambda name: (gains[name], name))
            found.append(Moved(what, moved, lost, gained))
    return tuple(sorted(found, key=lambda fact: -fact.moved))


def _shares(values: Sequence[str]) -> dict[str, float]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return {value: n / len(values) for value, n in counts.items()}


# ---- whose change it is ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ringing:
    """An open alert as seen from another one. `model` is provider/model."""

    route: str
    model: str
    from_ns: int
    to_ns: int

    def overlaps(self, other: Ringing) -> bool:
        return self.from_ns <= other.to_ns and other.from_ns <= self.to_ns


def verdict(
    this: Ringing,
    others: Sequence[Ringing],
    *,
    model_test_rings: bool,
    steady_models_elsewhere: bool,
    mix: float,
    total: float,
    judge_moved: bool = False,
) -> str:
    """Whose change it looks like: the provider's, the judge's, the traffic's, or the prompt's or traffic's."""
    if judge_moved:
        return "the judge moved"
    near = [other for other in others if other.overlaps(this)]
    provider = this.model.partition("/")[0]
    same_provider = {o.model for o in near if o.model.partition("/")[0] == provider} | {this.model}
    same_model = {o.route for o in near if o.model == this.model and o.route} | {this.route}
    if len(same_provider) > 1 and provider:
        return "provider"
    if model_test_rings or (len(same_model) > 1 and steady_models_elsewhere):
        return "provider changed the model"
    if total and mix / total > 0.5:
        return "traffic"
    return "prompt or traffic"
