"""The first screen: what is spent, what can be saved safely, what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from fastapi import APIRouter, Request
from fastapi.responses import Response

from tierlight_collector.decisions import Alert, Recommendation
from tierlight_collector.records import Rollup
from tierlight_collector.rollup import percentile, total

from ..analysis.spend import Forecast, forecast
from . import charts, fmt, markers
from .baseline import Saved, saved
from .buckets import Buckets, buckets
from .routetable import RouteRow, daily_costs, dearest, rate, route_rows
from .shell import Formats
from .site import Panel, Site
from .urlstate import State

MOST = 5
TOP_ROUTES = 10


@dataclass(frozen=True, slots=True)
class Kpis:
    sums: Rollup
    before: Rollup | None  # None: the data does not reach that far back
    forecast: Forecast | None
    saved: Saved | None
    ready: tuple[Recommendation, ...]
    waiting: int  # proposals that need data
    p95: float | None
    error_rate: float | None

    @property
    def cost(self) -> int | None:
        return None if self.sums.calls and self.sums.unpriced == self.sums.calls else self.sums.cost_nusd

    @property
    def change(self) -> str:
        return fmt.UNKNOWN if self.before is None else fmt.change(self.sums.cost_nusd, self.before.cost_nusd)

    def available(self, end: str) -> int:
        return sum(getattr(r, f"saving_{end}nusd") or 0 for r in self.ready)


@dataclass(frozen=True, slots=True)
class Spend:
    chart: charts.Chart
    rows: list[tuple[str, ...]]
    layers: list[charts.Layer]
    marks: list[charts.Mark]


class Overview:
    """The page's parts; each is worked out when the template asks for it."""

    def __init__(self, site: Site, state: State, formats: Formats) -> None:
        self.site, self.state, self.f = site, state, formats

    @property
    def _asked(self) -> str:
        """All of the address that a panel's figures and their words depend on."""
        state = self.state
        return f"{self.site.span(state.window)} {state.where()} {state.zone_name} {state.get('spend')} {state.get('compare')} {self.f.currency}"

    @cached_property
    def _parts(self) -> list[Rollup]:
        return self.site.rollups(
            self.state.window, ("route", "provider", "model", "tier"), self.state.where()
        )

    @cached_property
    def _costs(self) -> list[list[int | None]]:
        """Of each tier the cost of each bucket, None where it had no call."""
        found = self.site.costs(
            self._buckets.window, self._buckets.step, self.state.zone_name, ("tier",), self.state.where()
        )
        index = {start: i for i, start in enumerate(self._buckets.starts)}
        tiers: dict[str, list[int | None]] = {tier: [None] * len(index) for tier in charts.TIER_ORDER}
        for when, (tier,), cost in found:
            i = index.get(int(when.timestamp()) * fmt.NANO)
            if i is not None and tier in tiers:
                tiers[tier][i] = (tiers[tier][i] or 0) + cost
        return list(tiers.values())

    @cached_property
    def _buckets(self) -> Buckets:
        return buckets(self.state, self.site.first_ns())

    @cached_property
    def advice(self) -> list[Recommendation]:
        return self.site.recent("recommendations", self.site.store.recommendations)

    @cached_property
    def alerts(self) -> list[Alert]:
        rank = {"page": 0, "ticket": 1, "info": 2}
        return sorted(self.site.waiting_alerts(), key=lambda a: (rank[a.severity], -a.opened_ns))

    @cached_property
    def recommendations(self) -> list[Recommendation]:
        rank = {"ready": 0, "shipped": 1, "collecting": 2, "proposed": 3}
        worth = [
            r
            for r in self.advice
            if r.state in rank and r.action in ("downgrade", "upgrade", "fix_prompt", "not_enough_data")
        ]
        return sorted(
            worth, key=lambda r: (rank[r.state], -(r.saving_low_nusd or r.saving_nusd or 0), r.route)
        )

    @cached_property
    def kpis(self) -> Panel[Kpis]:
        return self.site.panel(lambda: self.site.recent(f"kpis {self._asked}", self._kpis))

    def _kpis(self) -> Kpis:
        sums = total(self._parts)
        before = None
        if self.site.reaches_back(self.state):
            before = total(self.site.rollups(self.state.previous, (), self.state.where()))
        daily = [
            sum(cost for cost in column if cost is not None) for column in zip(*self._costs, strict=True)
        ]
        whole = self._buckets.whole(daily, self.site.now_ns) if self._buckets.step == "day" else []
        first = next((i for i, cost in enumerate(whole) if cost), len(whole))
        ready = tuple(r for r in self.advice if r.state == "ready" and r.action == "downgrade")
        return Kpis(
            sums,
            before,
            forecast([float(cost) for cost in whole[first:]]),
            saved(self.site, self._parts, self.state.window.end_ns),
            ready,
            sum(
                r.state in ("proposed", "collecting") and r.action in ("downgrade", "upgrade")
                for r in self.advice
            ),
            percentile(sums.latency, 0.95),
            rate(sums.errors, sums.calls),
        )

    @cached_property
    def spend(self) -> Panel[Spend]:
        return self.site.panel(lambda: self.site.recent(f"spend {self._asked}", self._spend))

    def _spend(self) -> Spend:
        share = self.state.get("spend") == "share"
        money = self.f.money
        layers = []
        for tier, column in zip(charts.TIER_ORDER, self._costs, strict=True):
            values = [None if cost is None else float(cost) for cost in column]
            if any(values):
                layers.append(charts.Layer(tier or "no tier", f"t-{tier or 'none'}", values))
        totals = [sum(layer.values[i] or 0 for layer in layers) for i in range(len(self._buckets.starts))]

        def says(i: int) -> str:
            parts = ", ".join(
                f"{layer.name} {money(layer.values[i])}" for layer in reversed(layers) if layer.values[i]
            )
            return f"{money(totals[i])}{f' ({parts})' if parts else ''}"

        used = [(part.key[1], part.key[2]) for part in self._parts]
        marks = markers.marks(self.site, self.state, self._buckets, used=used)
        columns = self._buckets.columns(says)
        unit = "hour" if self._buckets.step == "hour" else "day"
        top = max(range(len(totals)), key=lambda i: totals[i]) if any(totals) else None
        finding = (
            "no spend" if top is None else f"most on {self._buckets.name(top)} with {money(totals[top])}"
        )
        chart = charts.stacked(
            columns,
            layers,
            fmt.percent if share else self._axis_money,
            label=f"Spend per {unit} by tier. {finding}.",
            share=share,
            marks=marks,
            height=200,
        )
        cells = [[money(v) for v in layer.values] for layer in layers] + [[money(t) for t in totals]]
        return Spend(chart, charts.rows_of(columns, cells), layers, marks)

    def _axis_money(self, nusd: float) -> str:
        return self.f.money(nusd).removesuffix(".00")

    @property
    def compares(self) -> bool:
        """Whether each route's figures stand beside their change against the period before."""
        return self.state.get("compare") == "prev" and self.site.reaches_back(self.state)

    @cached_property
    def routes(self) -> Panel[list[RouteRow]]:
        return self.site.panel(lambda: self.site.recent(f"rows {self._asked}", self._routes))

    def _routes(self) -> list[RouteRow]:
        before = None
        if self.compares:
            earlier = self.site.rollups(self.state.previous, ("route",), self.state.where())
            before = {part.key[0]: part for part in earlier}
        parts = dearest(self._parts, TOP_ROUTES)
        return route_rows(parts, self.site.preferences(), self.site.open_alerts(), self.advice, before)

    @property
    def route_count(self) -> int:
        """How many routes there are, of which `routes` has the dearest."""
        return len({part.key[0] for part in self._parts})

    @cached_property
    def sparks(self) -> dict[str, list[float | None]]:
        """Decoration: where it fails the numbers beside it stay."""
        return self.site.panel(self._sparks).value or {}

    def _sparks(self) -> dict[str, list[float | None]]:
        rows = self.routes.value or []
        if not rows:
            return {}
        found = self.site.costs(
            self._buckets.window,
            self._buckets.step,
            self.state.zone_name,
            ("route",),
            self.state.where(route=tuple(row.route for row in rows)),
        )
        return daily_costs(found, self._buckets.starts)

    def alert_place(self, route: str) -> float | None:
        """Where on a sparkline a route's newest open alert lies."""
        own = [a.change_ns for a in self.site.open_alerts() if a.route == route]
        return charts.place(self._buckets.edges, max(own)) if own else None


def router(site: Site) -> APIRouter:
    pages = APIRouter()

    @pages.get("/")
    def overview(request: Request) -> Response:
        if not site.routes():
            return site.redirect(request, "/welcome")
        state = site.state(request)
        return site.render(
            request,
            "overview.html",
            state=state,
            page="overview",
            title="Overview",
            blocks=("kpis", "attention", "recs", "spend", "routes_top"),
            model={"p": Overview(site, state, site.formats(state))},
        )

    @pages.get("/chart/spend.svg")
    def spend_svg(request: Request) -> Response:
        state = site.state(request)
        spend = Overview(site, state, site.formats(state))._spend()
        return site.svg(spend.chart, "Spend by tier", "spend")

    return pages
