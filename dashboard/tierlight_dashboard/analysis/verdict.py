"""The state of a route in one word and one sentence: what, how much, how sure, what to do.

The words are fixed: ship, keep, hold, needs more calls. An open alert outranks a recommendation, and a broken
floor outranks both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tierlight_collector.decisions import Alert, Recommendation
from tierlight_collector.records import Rollup, ScoreSums

from .intervals import Interval, quality_interval
from .wording import count, percent, points

Word = Literal["ship", "keep", "hold", "needs more calls", "no quality signal"]
Status = Literal["alert", "saving", "needs_data", "no_signal", "ok"]


@dataclass(frozen=True, slots=True)
class Quality:
    """A route's main score with its interval, and which part of the calls has one."""

    score: str
    interval: Interval
    coverage: float
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`status` sorts and colours; `word` and `sentence` are what a person reads."""

    status: Status
    word: Word
    sentence: str


def quality_of(sums: Rollup, preferred: str = "") -> Quality | None:
    """The quality of a set of calls by the preferred score, else the one on most calls whose values lie in 0..1."""
    by_name: dict[str, ScoreSums] = {}
    sources: dict[str, list[str]] = {}
    for (name, source), part in sums.scores.items():
        if part.n <= 0 or not 0 <= part.sum <= part.n or part.sumsq > part.n:
            continue
        by_name[name] = by_name[name] + part if name in by_name else part
        sources.setdefault(name, []).append(source)
    if not by_name:
        return None
    name = preferred if preferred in by_name else max(by_name, key=lambda key: (by_name[key].n, key))
    interval = quality_interval(by_name[name])
    if interval is None:
        return None
    coverage = min(1.0, interval.n / sums.calls) if sums.calls else 0.0
    return Quality(name, interval, coverage, tuple(sorted(sources[name])))


def verdict(
    quality: Quality | None,
    floor: float | None,
    open_alerts: Sequence[Alert],
    recommendations: Sequence[Recommendation],
) -> Verdict:
    """The one verdict on a route, from what is known now."""
    measured = "" if quality is None else _measured(quality)
    if quality is not None and floor is not None and quality.interval.high < floor:
        return Verdict(
            "alert",
            "hold",
            f"{measured}: below the floor of {percent(floor)}. Hold, and look at what changed.",
        )
    serious = [a for a in open_alerts if a.severity != "info"] or list(open_alerts)
    if serious:
        first = min(serious, key=lambda a: ({"page": 0, "ticket": 1, "info": 2}[a.severity], a.opened_ns))
        more = len(open_alerts) - 1
        hold = "" if "hold" in first.sentence.lower() else " Hold."
        tail = f" And {count(more, 'more open alert')}." if more else ""
        return Verdict("alert", "hold", f"{first.sentence.rstrip('.')}.{hold}{tail}")
    live = [r for r in recommendations if r.state not in ("dismissed", "kept", "rolled_back", "stale")]
    for action_state in ("ready", "shipped", "collecting", "proposed"):
        for r in live:
            if r.state != action_state:
                continue
            if r.action in ("downgrade", "upgrade"):
                if r.state == "ready":
                    return Verdict("saving", "ship", r.sentence)
                return Verdict(
                    "needs_data" if r.state == "collecting" else "saving", "needs more calls", r.sentence
                )
            if r.action == "not_enough_data":
                return Verdict("needs_data", "needs more calls", r.sentence)
            if r.action == "no_quality_signal":
                return Verdict("no_signal", "no quality signal", r.sentence)
            if r.action == "fix_prompt":
                return Verdict("alert", "hold", r.sentence)
            return Verdict("ok", "keep", r.sentence)
    if quality is None:
        return Verdict(
            "no_signal",
            "no quality signal",
            "Cost and latency only: no score tells whether the answers are good. Nothing is proposed without one.",
        )
    if floor is not None and quality.interval.low < floor:
        return Verdict(
            "needs_data",
            "needs more calls",
            f"{measured}: the floor of {percent(floor)} lies inside the interval. Needs more scored calls to say.",
        )
    held = f", above the floor of {percent(floor)}" if floor is not None else "; no floor is set"
    return Verdict("ok", "keep", f"{measured}{held}. Keep.")


def _measured(quality: Quality) -> str:
    i = quality.interval
    return (
        f"Quality ({quality.score}) {percent(i.mean)} (95 % {percent(i.low)} to {percent(i.high)}, "
        f"n = {i.n:,}, {percent(quality.coverage)} of calls scored)"
    )


def compared(now: Interval | None, before: Interval | None) -> str:
    """Change of a quality against the window before, with an interval; "" when one of them is unknown.

    References: R. G. Newcombe, Statistics in Medicine 17 (1998), method 10 (from two Wilson intervals).
    """
    if now is None or before is None:
        return ""
    difference = now.mean - before.mean
    low = difference - ((now.mean - now.low) ** 2 + (before.high - before.mean) ** 2) ** 0.5
    high = difference + ((now.high - now.mean) ** 2 + (before.mean - before.low) ** 2) ** 0.5
    return f"{points(difference)} (95 % {points(low, '')} to {points(high, '')})"
