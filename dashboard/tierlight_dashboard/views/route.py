"""One route: is it drifting, why, and should its tier change?"""

from __future__ import annotations

from functools import cached_property

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, Response

from tierlight_collector.decisions import Experiment, Recommendation
from tierlight_collector.records import CallRow
from tierlight_collector.rollup import total
from tierlight_collector.stores.protocol import Order

from ..analysis.split import Split, split_of
from ..analysis.verdict import compared, quality_of
from . import fmt
from .csvout import csv_response
from .routecharts import CHARTS, Drawn, RouteCharts
from .site import Panel, Site

MOST_SORTED = 1_000
MOST_LISTED = 10


class RoutePage(RouteCharts):
    """The page's parts beside its charts."""

    @cached_property
    def before(self) -> str:
        """How quality moved against the period before."""
        if not self.site.reaches_back(self.state) or self.row is None or self.row.quality is None:
            return ""
        earlier = total(self.site.rollups(self.state.previous, (), self._where()))
        quality = quality_of(earlier, self.row.quality.score)
        return compared(self.row.quality.interval, quality.interval if quality else None)

    @cached_property
    def experiments(self) -> list[Experiment]:
        return [e for e in self.site.store.experiments() if e.route == self.route]

    # ---- tables ------------------------------------------------------------------------------------------

    def split_of(self, advice: Recommendation) -> Split | None:
        """How the A/B test behind a recommendation was split."""
        return split_of(advice.card)

    @cached_property
    def recent_from_ns(self) -> int:
        """From when on calls are sorted by cost or time: these orders have no index, so not over all of a busy route."""
        window = self.state.window
        calls = self.row.calls if self.row is not None else 0
        share = min(1.0, MOST_SORTED / calls) if calls else 1.0
        return window.end_ns - int((window.end_ns - window.start_ns) * share)

    def _calls(self, order: Order, **where: object) -> Panel[list[CallRow]]:
        filters = self.state.where(
            route=(self.route,),
            start_ns=self.state.window.start_ns if order == "time" else self.recent_from_ns,
            end_ns=self.state.window.end_ns,
            **where,
        )
        key = f"calls {self.route} {order} {self.site.span(self.state.window)} {where} {filters.env} {filters.purpose}"

        def ask() -> list[CallRow]:
            return list(self.site.store.calls(filters, limit=MOST_LISTED, order=order).rows)

        return self.site.panel(lambda: self.site.recent(key, ask))

    @cached_property
    def latest(self) -> Panel[list[CallRow]]:
        return self._calls("time")

    @cached_property
    def costliest(self) -> Panel[list[CallRow]]:
        return self._calls("cost")

    @cached_property
    def slowest(self) -> Panel[list[CallRow]]:
        return self._calls("latency")

    @cached_property
    def failed(self) -> Panel[list[CallRow]]:
        return self._calls("time", error=True)


def router(site: Site) -> APIRouter:
    pages = APIRouter()

    def drawn(request: Request, name: str) -> tuple[str, Drawn]:
        state = site.state(request)
        routes = state.filters.get("route", ())
        if name not in CHARTS or not routes:
            raise HTTPException(404, f"Expected one of {', '.join(CHARTS)} and a route.")
        return routes[0], RoutePage(site, state, site.formats(state), routes[0]).draw(name)

    @pages.get("/chart/route-{name}.svg")
    def chart(request: Request, name: str) -> Response:
        route, found = drawn(request, name)
        return site.svg(found.chart, f"{fmt.visible(route, 80)}: {found.title}", f"{route}-{name}")

    @pages.get("/chart/route-{name}.csv")
    def chart_csv(request: Request, name: str) -> Response:
        route, found = drawn(request, name)
        return csv_response(f"{route}-{name}", found.file_heads, found.file_rows)

    @pages.get("/chart/route-hourly.json")
    def hourly(request: Request) -> Response:
        state = site.state(request)
        routes = state.filters.get("route", ())
        if not routes:
            raise HTTPException(404, "Expected a route.")
        return JSONResponse(RoutePage(site, state, site.formats(state), routes[0]).hourly())

    @pages.get("/routes/{name:path}")
    def route(request: Request, name: str) -> Response:
        state = site.state(request)
        if name not in {r.route for r in site.routes()}:
            raise HTTPException(404, f"No call of a route “{fmt.visible(name, 80)}” was ever received.")
        return site.render(
            request,
            "route.html",
            state=state,
            page="routes",
            title=name,
            blocks=("charts", "evidence", "slices", "calls"),
            replace_url=not state.get("open"),
            model={"p": RoutePage(site, state, site.formats(state), name)},
        )

    return pages
