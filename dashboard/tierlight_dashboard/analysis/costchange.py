"""Why the cost of an answer changed: other models, other sizes, other prices, more tries.

The parts add up to the change. Their intervals come from leaving out one stretch of the calls after another
(the grouped jackknife), so calls of one hour that are alike do not make them too narrow.

References: Ang (2005), "The LMDI approach to decomposition analysis", Energy Policy 33(7); Kuensch (1989), "The
jackknife and the bootstrap for general stationary observations", Annals of Statistics 17(3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log
from typing import Final

from tierlight_collector.records import CallRow

from .attribution import ABSENT_SHARE, CostPart, Term, log_mean, split_cost
from .causes import cost_parts
from .wording import money

LEAST_CALLS: Final = 100
GROUPS: Final = 20
T_95: Final = 2.093  # Student's t of 19 degrees of freedom
_WORDS: Final = {
    "mix": "which models answer",
    "tokens": "tokens a call",
    "price": "price of a token",
    "retries": "tries per answer",
}


@dataclass(frozen=True, slots=True)
class CostChange:
    """Cost of an answer in dollars before and after, and its parts with 95 % intervals; `before + sum = after`."""

    before: float
    after: float
    terms: tuple[Term, ...]

    def sentence(self, against: str) -> str:
        """What, how much, how sure."""
        per_1k = [money(usd * 1e12) for usd in (self.before, self.after)]
        change = self.after - self.before
        main = max(self.terms, key=lambda term: abs(term.effect))
        sure = main.low is not None and main.high is not None and (main.low > 0) == (main.high > 0)
        moved = f"A thousand answers cost {per_1k[1]}, {against} {per_1k[0]}"
        if not sure or self.before <= 0 or abs(change) < 0.01 * self.before:
            return f"{moved}: no part moved by more than chance would."
        up = "up" if main.effect > 0 else "down"
        return f"{moved}. The largest part is {_WORDS[main.name]}, {up} {money(abs(main.effect) * 1e12)}."


def cost_change(before: Sequence[CallRow], after: Sequence[CallRow]) -> CostChange | None:
    """The change between two runs of calls, each in order of time; None below a hundred priced calls in either."""
    sides = [[row for row in rows if row.call.cost_nusd is not None] for rows in (before, after)]
    if min(len(rows) for rows in sides) < LEAST_CALLS:
        return None
    whole = _split(*sides)
    effects: list[Mapping[str, float]] = []
    for group in range(GROUPS):
        left = [[row for i, row in enumerate(rows) if i * GROUPS // len(rows) != group] for rows in sides]
        effects.append(_split(*left))
    terms = []
    for name, effect in whole.items():
        values = [each[name] for each in effects]
        if max(map(abs, [effect, *values])) < 1e-9 * _per_answer(sides[0]):  # rounding, not a change
            terms.append(Term(name, 0.0, 0.0, 0.0))
            continue
        mean = sum(values) / GROUPS
        deviation = ((GROUPS - 1) / GROUPS * sum((v - mean) ** 2 for v in values)) ** 0.5
        terms.append(Term(name, effect, effect - T_95 * deviation, effect + T_95 * deviation))
    return CostChange(_per_answer(sides[0]), _per_answer(sides[1]), tuple(terms))


def _split(before: Sequence[CallRow], after: Sequence[CallRow]) -> dict[str, float]:
    tries = _tries(before), _tries(after)
    old, new = (
        {name: replace(part, share=part.share * times) for name, part in cost_parts(rows).items()}
        for rows, times in zip((before, after), tries, strict=True)
    )
    terms = {term.name: term.effect for term in split_cost(old, new)}
    retries = _weight(old, new) * log(tries[1] / tries[0])
    # What is billed beside tokens (a search, an image) has no part of its own; it counts as price.
    rest = _per_answer(after) - _per_answer(before) - sum(terms.values())
    return {
        "mix": terms["share"] - retries,
        "tokens": terms["tokens"],
        "price": terms["price"] + rest,
        "retries": retries,
    }


def _weight(old: Mapping[str, CostPart], new: Mapping[str, CostPart]) -> float:
    weight = 0.0
    for name in {*old, *new}:
        a = old.get(name) or replace(new[name], share=ABSENT_SHARE)
        b = new.get(name) or replace(a, share=ABSENT_SHARE)
        if a.cost > 0 and b.cost > 0:
            weight += log_mean(b.cost, a.cost)
    return weight


def _tries(rows: Sequence[CallRow]) -> float:
    return len(rows) / max(1, sum(row.call.attempt_final for row in rows))


def _per_answer(rows: Sequence[CallRow]) -> float:
    answers = max(1, sum(row.call.attempt_final for row in rows))
    return sum(row.call.cost_nusd or 0 for row in rows) / 1e9 / answers
