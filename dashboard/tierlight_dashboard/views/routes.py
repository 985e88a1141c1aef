"""All routes in one table: which costs what, and whether it is healthy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from fastapi import APIRouter, Request
from fastapi.responses import Response

from tierlight.semconv import TIERS
from tierlight_collector.records import Rollup
from tierlight_collector.rollup import total

from . import charts, fmt
from .buckets import Buckets, buckets
from .csvout import Cell, csv_response, json_response
from .routetable import Figures, RouteRow, daily_costs, deltas, route_rows, sorted_rows
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
# key, head, whether it is a number, which order a click sorts by first ("" = not sortable)
COLUMNS = (
    ("status", "Status", False, "asc"),
    ("models", "Models", False, ""),
    ("calls", "Calls", True, "desc"),
    ("cost", "Cost", True, "desc"),
    ("per1k", "Per 1k calls", True, "desc"),
    ("p50", "p50", True, "desc"),
    ("p95", "p95", True, "desc"),
    ("ttft", "First token", True, "desc"),
    ("quality", "Quality, 95 % interval", False, "desc"),
    ("errors", "Errors", True, "desc"),
    ("fallback", "Fallback", True, "desc"),
    ("escalation", "Escalated", True, "desc"),
    ("course", "Cost over time", False, ""),
)
HEADS = (
    "route", "status", "models", "calls", "cost_usd", "usd_per_1k_calls", "p50_ms", "p95_ms", "ttft_p50_ms", "quality_score", "quality", "quality_low",
    "quality_high", "scored_calls", "error_rate", "fallback_rate", "escalation_rate", "unpriced_calls",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Group(Figures):
    """Routes of one prefix (or all) with their sum; `rows` are those of this page, `routes` counts all of them."""

    prefix: str
    rows: list[RouteRow]
    routes: int
    sums: Rollup
    before: Rollup | None = None

    @property
    def deltas(self) -> dict[str, str]:
        return deltas(self.sums, self.before)


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
        if self.compares:
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

    @property
    def compares(self) -> bool:
        """Whether every figure stands beside its change against the period before."""
        return self.state.get("compare") == "prev" and self.site.reaches_back(self.state)

    @cached_property
    def cols(self) -> tuple[str, ...]:
        """The columns that are shown, in their own order: those chosen in the address, else all."""
        chosen = self.state.filters.get("cols", ())
        known = [key for key, *_ in COLUMNS]
        return tuple(key for key in known if key in chosen) or tuple(known)

    @cached_property
    def _by_prefix(self) -> dict[str, list[RouteRow]]:
        """All rows by the part of their name before the first separator, in the order of the first of each."""
        groups: dict[str, list[RouteRow]] = {}
        for row in self.all.value or []:
            groups.setdefault(prefix_of(row.route), []).append(row)
        return groups

    @property
    def is_grouped(self) -> bool:
        return self.state.get("group") == "prefix"

    @cached_property
    def shown(self) -> list[RouteRow]:
        start = (self.state.page - 1) * PAGE_ROWS
        rows = self.all.value or []
        if self.is_grouped:
            rows = [row for group in self._by_prefix.values() for row in group]
        return rows[start : start + PAGE_ROWS]

    @property
    def pages(self) -> int:
        return max(1, -(-len(self.all.value or []) // PAGE_ROWS))

    @cached_property
    def sums(self) -> Group:
        return _group("", self.shown, self.all.value or [])

    @cached_property
    def groups(self) -> list[Group]:
        """The page's rows, with the sums of the whole group each belongs to where groups were asked for."""
        if not self.is_grouped:
            return [Group("", self.shown, len(self.shown), self.sums.sums)]
        by_prefix: dict[str, list[RouteRow]] = {}
        for row in self.shown:
            by_prefix.setdefault(prefix_of(row.route), []).append(row)
        return [_group(prefix, rows, self._by_prefix[prefix]) for prefix, rows in by_prefix.items()]

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
        found = self.site.costs(
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


def _group(prefix: str, shown: list[RouteRow], rows: list[RouteRow]) -> Group:
    earlier = [row.before for row in rows if row.before is not None]
    sums = total([row.sums for row in rows])
    return Group(prefix, shown, len(rows), sums, total(earlier) if earlier else None)


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
        if len(state.filters.get("cols", ())) == len(COLUMNS):  # all of them is what an empty choice means
            state = replace(state, filters={k: v for k, v in state.filters.items() if k != "cols"})
        model = Routes(site, state)
        return site.render(
            request,
            "routes.html",
            state=state,
            page="routes",
            title="Routes",
            blocks=("rows",),
            model={"p": model, "tiers": TIERS, "statuses": STATUSES, "columns": COLUMNS},
        )

    @pages.get("/routes.csv")
    def as_csv(request: Request) -> Response:
        return csv_response("routes", HEADS, Routes(site, site.state(request)).cells())

    @pages.get("/routes.json")
    def as_json(request: Request) -> Response:
        return json_response(HEADS, Routes(site, site.state(request)).cells())

    return pages
