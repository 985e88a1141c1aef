"""One row per route: what the overview, the routes page, its CSV and the weekly report show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tierlight_collector.decisions import Alert, Recommendation
from tierlight_collector.records import Rollup
from tierlight_collector.rollup import percentile, total

from ..analysis.preferences import Preferences
from ..analysis.verdict import Quality, Verdict, compared, quality_of, verdict
from . import fmt
from .fmt import NANO, per_thousand

DELTAS = ("calls", "cost", "per1k", "p50", "p95", "ttft", "errors", "fallback", "escalation", "quality", "quality_interval")  # fmt: skip
STATUS_ORDER = {"alert": 0, "saving": 1, "needs_data": 2, "no_signal": 3, "ok": 4}


class Figures:
    """What the sums of a set of calls say of it."""

    __slots__ = ()
    sums: Rollup

    @property
    def calls(self) -> int:
        return self.sums.calls

    @property
    def cost_nusd(self) -> int | None:
        return None if self.sums.calls and self.sums.unpriced == self.sums.calls else self.sums.cost_nusd

    @property
    def per_1k_nusd(self) -> float | None:
        return per_thousand(self.cost_nusd, self.sums.calls - self.sums.unpriced)

    @property
    def p50(self) -> float | None:
        return percentile(self.sums.latency, 0.5)

    @property
    def p95(self) -> float | None:
        return percentile(self.sums.latency, 0.95)

    @property
    def ttft(self) -> float | None:
        return percentile(self.sums.ttft, 0.5)

    @property
    def error_rate(self) -> float | None:
        return rate(self.sums.errors, self.sums.calls)

    @property
    def fallback_rate(self) -> float | None:
        return rate(self.sums.fallbacks, self.sums.calls)

    @property
    def escalation_rate(self) -> float | None:
        return rate(self.sums.escalations, self.sums.calls)


@dataclass(frozen=True, slots=True)
class Counted(Figures):
    """The figures of any sums."""

    sums: Rollup


@dataclass(frozen=True, slots=True)
class RouteRow(Figures):
    """The facts of one route in a window; rates 0..1, times in ms, unknown is None."""

    route: str
    sums: Rollup
    models: tuple[tuple[str, str, float], ...]  # (model, tier, share of calls), most used first
    quality: Quality | None
    floor: float | None
    verdict: Verdict
    before: Rollup | None = None

    @property
    def deltas(self) -> dict[str, str]:
        return deltas(self.sums, self.before, self.quality.score if self.quality else "")


def deltas(now: Rollup, before: Rollup | None, preferred_score: str = "") -> dict[str, str]:
    """How the figures of a set of calls moved against the period before, by column; "" where nothing compares or moved.

    Rates move in points, times and money in percent.
    """
    if before is None or not before.calls:
        return dict.fromkeys(DELTAS, "")
    a, b = Counted(now), Counted(before)
    found = {
        "calls": fmt.change(a.calls, b.calls),
        "cost": fmt.change(a.cost_nusd, b.cost_nusd),
        "per1k": fmt.change(a.per_1k_nusd, b.per_1k_nusd),
        "p50": fmt.change(a.p50, b.p50),
        "p95": fmt.change(a.p95, b.p95),
        "ttft": fmt.change(a.ttft, b.ttft),
        "errors": _points(a.error_rate, b.error_rate),
        "fallback": _points(a.fallback_rate, b.fallback_rate),
        "escalation": _points(a.escalation_rate, b.escalation_rate),
    }
    quality = quality_of(now, preferred_score)
    earlier = quality_of(before, quality.score if quality else "")
    if quality is not None and earlier is not None and earlier.score == quality.score:
        found["quality"] = fmt.points(quality.interval.mean - earlier.interval.mean)
        found["quality_interval"] = compared(quality.interval, earlier.interval)
    silent = (fmt.UNKNOWN, "0%", "0.0 pt")
    return {name: "" if (text := found.get(name, "")) in silent else text for name in DELTAS}


def _points(now: float | None, before: float | None) -> str:
    return fmt.points(None if now is None or before is None else now - before)


def rate(part: int, whole: int) -> float | None:
    """A share of calls; unknown where there were none."""
    return part / whole if whole else None


def by_route(parts: Sequence[Rollup]) -> dict[str, list[Rollup]]:
    """Rollups whose key begins with the route, by route."""
    routes: dict[str, list[Rollup]] = {}
    for part in parts:
        routes.setdefault(part.key[0], []).append(part)
    return routes


def dearest(parts: Sequence[Rollup], most: int) -> list[Rollup]:
    """The rollups of the dearest routes, of those whose key begins with the route."""
    costs: dict[str, int] = {}
    for part in parts:
        costs[part.key[0]] = costs.get(part.key[0], 0) + part.cost_nusd
    chosen = set(sorted(costs, key=lambda route: (-costs[route], route))[:most])
    return [part for part in parts if part.key[0] in chosen]


def route_rows(
    parts: Sequence[Rollup],
    prefs: Preferences,
    open_alerts: Sequence[Alert],
    recommendations: Sequence[Recommendation],
    before: Mapping[str, Rollup] | None = None,
) -> list[RouteRow]:
    """Rows from rollups by (route, provider, model, tier), dearest first."""
    rows = []
    for route, pieces in by_route(parts).items():
        sums = total(pieces)
        quality = quality_of(sums, prefs.gate_scores.get(route, ""))
        floor = prefs.floor_of(route)
        models: dict[tuple[str, str], int] = {}
        for piece in pieces:
            key = (piece.key[2], piece.key[3])
            models[key] = models.get(key, 0) + piece.calls
        shares = tuple(
            (model, tier, n / sums.calls if sums.calls else 0.0)
            for (model, tier), n in sorted(models.items(), key=lambda item: (-item[1], item[0]))
        )
        own_alerts = [a for a in open_alerts if a.route == route]
        own_advice = [r for r in recommendations if r.route == route]
        rows.append(
            RouteRow(
                route,
                sums,
                shares,
                quality,
                floor,
                verdict(quality, floor, own_alerts, own_advice),
                None if before is None else before.get(route),
            )
        )
    return sorted(rows, key=lambda row: (-(row.cost_nusd or 0), row.route))


_KEYS: Mapping[str, Callable[[RouteRow], float | str | None]] = {
    "route": lambda r: r.route,
    "status": lambda r: STATUS_ORDER[r.verdict.status],
    "calls": lambda r: r.calls,
    "cost": lambda r: r.cost_nusd,
    "per1k": lambda r: r.per_1k_nusd,
    "p50": lambda r: r.p50,
    "p95": lambda r: r.p95,
    "ttft": lambda r: r.ttft,
    "quality": lambda r: None if r.quality is None else r.quality.interval.mean,
    "errors": lambda r: r.error_rate,
    "fallback": lambda r: r.fallback_rate,
    "escalation": lambda r: r.escalation_rate,
}


def sorted_rows(rows: Sequence[RouteRow], key: str, descending: bool) -> list[RouteRow]:
    """Rows by one column; unknown values come last in either direction, ties by name."""
    value = _KEYS.get(key, _KEYS["cost"])
    keyed = [(value(row), row) for row in sorted(rows, key=lambda row: row.route)]
    known = [pair for pair in keyed if pair[0] is not None]
    known.sort(key=lambda pair: pair[0], reverse=descending)  # type: ignore[arg-type, return-value]
    return [row for _, row in known] + [row for v, row in keyed if v is None]


def daily_costs(
    found: Sequence[tuple[datetime, tuple[str, ...], int]], starts: Sequence[int]
) -> dict[str, list[float | None]]:
    """Cost per bucket of each route, from costs grouped by route; None before its first call."""
    index = {start: i for i, start in enumerate(starts)}
    costs: dict[str, list[float | None]] = {}
    for when, key, cost in found:
        i = index.get(int(when.timestamp()) * NANO)
        if i is not None:
            row = costs.setdefault(key[0], [None] * len(starts))
            row[i] = (row[i] or 0) + cost
    for row in costs.values():
        first = next((i for i, v in enumerate(row) if v is not None), len(row))
        row[first:] = [v or 0.0 for v in row[first:]]
    return costs
