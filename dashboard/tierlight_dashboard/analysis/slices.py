"""A route's calls cut by what may explain a difference: prompt version, answering model, segment, input length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tierlight_collector.records import CallRow, Rollup, ScoreSums
from tierlight_collector.rollup import bin_of_ns

# Upper ends in tokens: powers of four, so that a bucket's dearest call costs about four times its cheapest.
LENGTHS: Final = (500, 2_000, 8_000, 32_000)


@dataclass(frozen=True, slots=True)
class Slice:
    """The calls that share one value of one fact; "" is a call without that fact."""

    by: str
    name: str
    sums: Rollup


def input_length(tokens: int | None) -> str:
    """The bucket of an input's length.

    >>> input_length(500), input_length(501), input_length(99_000), input_length(None)
    ('up to 500 tokens', '500 to 2,000 tokens', 'over 32,000 tokens', '')
    """
    if tokens is None:
        return ""
    before = 0
    for end in LENGTHS:
        if tokens <= end:
            return f"{before:,} to {end:,} tokens" if before else f"up to {end:,} tokens"
        before = end
    return f"over {before:,} tokens"


FACTS: Final[Mapping[str, Callable[[CallRow], str]]] = {
    "prompt version": lambda row: row.call.prompt_version,
    "model": lambda row: row.call.model,
    "segment": lambda row: row.call.segment,
    "input length": lambda row: input_length(row.call.input_tokens),
    "arm": lambda row: row.call.arm,
    "environment": lambda row: row.call.env,
}


def slices(rows: Sequence[CallRow]) -> list[Slice]:
    """All slices by facts that differ among the calls; one that all calls share cuts nothing."""
    found = []
    for by, fact in FACTS.items():
        groups: dict[str, list[CallRow]] = {}
        for row in rows:
            groups.setdefault(fact(row), []).append(row)
        if len(groups) > 1:
            found += [Slice(by, name, summed(group)) for name, group in groups.items()]
    return found


def summed(rows: Sequence[CallRow]) -> Rollup:
    """The sums of calls that a table of slices shows; tokens are left out."""
    latency: dict[int, int] = {}
    scores: dict[tuple[str, str], ScoreSums] = {}
    for row in rows:
        if row.call.duration_ns is not None:
            place = bin_of_ns(row.call.duration_ns)
            latency[place] = latency.get(place, 0) + 1
        for score in row.scores:
            if score.value is not None:
                key = score.name, score.source
                scores[key] = scores.get(key, ScoreSums(0, 0.0, 0.0)) + ScoreSums(
                    1, score.value, score.value**2
                )
    costs = [row.call.cost_nusd for row in rows if row.call.cost_nusd is not None]
    return Rollup(
        calls=len(rows),
        errors=sum(bool(row.call.error_class or row.call.error_type) for row in rows),
        cost_nusd=sum(costs),
        unpriced=len(rows) - len(costs),
        scored=sum(bool(row.scores) for row in rows),
        latency=latency,
        scores=scores,
    )
