"""All routes in one table: which costs what, and whether it is healthy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from fastapi import APIRouter, Request
from fastapi.responses import Response

from tierlight.semconv import TIERS
from tierlight_collector.records import Rollup
from tierlight_collector.rollup import percentile

from . import charts, fmt
from .buckets import Buckets, buckets
from .csvout import Cell, csv_response, json_response
from .routetable import RouteRow, daily_costs, rate, route_rows, sorted_rows, total
from .site import Panel, Site
from .urlstate import PAGE_ROWS, State

STATUSES = (
    ("", "any status"),
    ("alert", "hold (alert or floor)"),
    ("saving", "can save"),
    ("needs_data", "needs data"),
    ("no_signal", "no quality signal"),
    ("ok", "ok"),
)
HEADS = (
    "route", "status", "models", "calls", "cost_usd", "usd_per_1k_calls", "p50_ms", "p95_ms", "ttft_p50_ms", "quality_score", "quality", "quality_low",
    "quality_high", "scored_calls", "error_rate", "fallback_rate", "escalation_rate", "unpriced_calls",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Group:
    """Routes of one prefix (or all) with their sum."""

    prefix: str
    rows: list[RouteRow]
    sums: Rollup

    @property
    def cost(self) -> int | None:
        return None if self.sums.calls and self.sums.calls == self.sums.unpriced else self.sums.cost_nusd

    @property
    def p95(self) -> float | None:
        return percentile(self.sums.latency, 0.95)

    @property
    def p50(self) -> float | None:
        return percentile(self.sums.latency, 0.5)

    @property
    def error_rate(self) -> float | None:
        return rate(self.sums.errors, self.sums.calls)

    @property
    def fallback_rate(self) -> float | None:
        return rate(self.sums.fallbacks, self.sums.calls)

    @property
    def escalation_rate(self) -> float | None:
        return rate(self.sums.escalations, self.sums.calls)


class Routes:
    """The filtered, sorted page of the table."""

    def __init__(self, site: Site, state: State) -> None:
        self.site, self.state = site, state

    @cached_property
    def all(self) -> Panel[list[RouteRow]]:
        return self.site.panel(self.rows)

    def rows(self) -> list[RouteRow]:
        state = self.state
        parts = self.site.rollups(state.window, ("route", "provider", "model", "tier"), state.where())
        before = None
        if state.get("compare") == "prev" and self.site.reaches_back(state):
            before = {r.key[0]: r for r in self.site.rollups(state.previous, ("route",), state.where())}
        rows = route_rows(
            parts,
            self.site.preferences(),
            self.site.open_alerts(),
            self.site.recent("recommendations", self.site.store.recommendations),
            before,
        )
        wanted = state.get("q").casefold()
        status = state.get("status")
        kept = [
            row
            for row in rows
            if wanted in row.route.casefold() and (not status or row.verdict.status == status)
        ]
        return sorted_rows(kept, state.get("sort", "cost"), state.get("dir", "desc") == "desc")

    @cached_property
    def shown(self) -> list[RouteRow]:
        start = (self.state.page - 1) * PAGE_ROWS
        return (self.all.value or [])[start : start + PAGE_ROWS]

    @property
    def pages(self) -> int:
        return max(1, -(-len(self.all.value or []) // PAGE_ROWS))

    @cached_property
    def sums(self) -> Group:
        rows = self.all.value or []
        return Group("", rows, total([row.sums for row in rows]))

    @cached_property
    def groups(self) -> list[Group]:
        """The page's rows, by the part of their name before the first separator where that was asked for."""
        if self.state.get("group") != "prefix":
            return [Group("", self.shown, self.sums.sums)]
        by_prefix: dict[str, list[RouteRow]] = {}
        for row in self.shown:
            by_prefix.setdefault(prefix_of(row.route), []).append(row)
        return [Group(prefix, rows, total([r.sums for r in rows])) for prefix, rows in by_prefix.items()]

    @cached_property
    def _buckets(self) -> Buckets:
        return buckets(self.state, self.site.first_ns())

    @cached_property
    def sparks(self) -> dict[str, list[float | None]]:
        """Decoration: where it fails the numbers beside it stay."""
        return self.site.panel(self._sparks).value or {}

    def _sparks(self) -> dict[str, list[float | None]]:
        if not self.shown:
            return {}
        found = self.site.series(
            self._buckets.window,
            self._buckets.step,
            self.state.zone_name,
            ("route",),
            self.state.where(route=tuple(row.route for row in self.shown)),
        )
        return daily_costs(found, self._buckets.starts)

    def alert_place(self, route: str) -> float | None:
        own = [a.change_ns for a in self.site.open_alerts() if a.route == route]
        return charts.place(self._buckets.edges, max(own)) if own else None

    def delta(self, row: RouteRow) -> str:
        """Change of cost against the period before."""
        if not self.site.reaches_back(self.state):
            return fmt.UNKNOWN
        return "new" if row.before is None else fmt.change(row.sums.cost_nusd, row.before.cost_nusd)

    def cells(self) -> Iterator[tuple[Cell, ...]]:
        for row in self.rows():
            q = row.quality
            yield (
                row.route,
                row.verdict.status,
                " ".join(f"{model or 'unknown'}:{share:.3f}" for model, _, share in row.models),
                row.calls,
                None if row.cost_nusd is None else row.cost_nusd / fmt.NANO,
                None if row.per_1k_nusd is None else round(row.per_1k_nusd / fmt.NANO, 9),
                *(None if v is None else round(v, 1) for v in (row.p50, row.p95, row.ttft)),
                "" if q is None else q.score,
                *(
                    (None,) * 4
                    if q is None
                    else (q.interval.mean, q.interval.low, q.interval.high, q.interval.n)
                ),
                row.error_rate,
                row.fallback_rate,
                row.escalation_rate,
                row.sums.unpriced,
            )


def prefix_of(route: str) -> str:
    """The part of a route's name that its relatives share.

    >>> prefix_of("classify.intent"), prefix_of("classify-urgency"), prefix_of("rerank")
    ('classify', 'classify', 'rerank')
    """
    for i, letter in enumerate(route):
        if letter in "./-_:" and i:
            return route[:i]
    return route


def router(site: Site) -> APIRouter:
    pages = APIRouter()

    @pages.get("/routes")
    def routes(request: Request) -> Response:
        state = site.state(request)
        model = Routes(site, state)
        return site.render(
            request,
            "routes.html",
            state=state,
            page="routes",
            title="Routes",
            blocks=("rows",),
            model={"p": model, "tiers": TIERS, "statuses": STATUSES},
        )

    @pages.get("/routes.csv")
    def as_csv(request: Request) -> Response:
        return csv_response("routes", HEADS, Routes(site, site.state(request)).cells())

    @pages.get("/routes.json")
    def as_json(request: Request) -> Response:
        return json_response(HEADS, Routes(site, site.state(request)).cells())

    return pages
