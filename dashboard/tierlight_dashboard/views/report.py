"""A route owner's weekly report: one HTML file that needs nothing else, for mail and archive."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response
from markupsafe import Markup

from tierlight.pricing import PriceBook
from tierlight_collector.decisions import Alert
from tierlight_collector.records import HOUR_NS
from tierlight_collector.stores.protocol import Store

from ..analysis.verdict import compared, quality_of
from . import fmt
from .assets import HERE
from .charts import Chart
from .route import RoutePage
from .routesample import Split
from .routetable import RouteRow, route_rows
from .site import DashboardSettings, Site, file_name
from .urlstate import State, named_window, parse

WEEK_NS = 7 * 24 * HOUR_NS


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart inside the document, with what it says for those who do not see it."""

    title: str
    says: str
    address: str


@dataclass(frozen=True, slots=True)
class Week:
    """What the document says of one route."""

    route: str
    page: RoutePage
    was: RouteRow | None
    quality_change: str
    alerts: list[Alert]
    pictures: list[Picture]
    split: Split | None
    split_picture: Picture | None


def report(store: Store, routes: str | Sequence[str], now_ns: int, *, book: PriceBook | None = None) -> str:
    """The last 7 days of one route, or of several, against the 7 before, as one HTML document.

    Raises:
        LookupError: no call of such a route is stored; the message names some that are.
    """
    with _site(store, now_ns, book) as site:
        return _report(site, [routes] if isinstance(routes, str) else list(routes))


def report_of(store: Store, owner: str, now_ns: int, *, book: PriceBook | None = None) -> str:
    """The same for all routes of one owner that had calls in the week.

    Raises:
        LookupError: nobody of that name owns a route that was called; the message names the owners.
    """
    with _site(store, now_ns, book) as site:
        owners = site.preferences().owners
        since = now_ns - WEEK_NS
        own = sorted(r.route for r in site.routes() if owners.get(r.route) == owner and r.last_ns >= since)
        if not own:
            known = ", ".join(sorted(set(owners.values()))) or "nobody yet: name owners on the settings page"
            raise LookupError(f"{owner!r} owns no route with a call in the last 7 days; owners are {known}")
        return _report(site, own)


@contextmanager
def _site(store: Store, now_ns: int, book: PriceBook | None) -> Iterator[Site]:
    site = Site(store, DashboardSettings(clock=lambda: now_ns, book=book, cache_seconds=0))
    try:
        yield site
    finally:
        site.close()


def _report(site: Site, routes: Sequence[str]) -> str:
    known = sorted(r.route for r in site.routes())
    for route in routes:
        if route not in known:
            raise LookupError(
                f"no call of a route {route!r} is stored; there are {', '.join(known[:10]) or 'none at all'}"
            )
    state = _week(site, routes[0])
    context = {
        "weeks": [_one(site, route) for route in routes],
        "state": state,
        "change": fmt.change,
        "f": site.formats(state),
        "now_ns": site.now_ns,
        "css": Markup((HERE / "static" / "report.css").read_text("utf-8")),  # ours; nothing of the user's
        "version": site.settings.version,
    }
    return site.env.get_template("report.html").render(context)


def _one(site: Site, route: str) -> Week:
    state = _week(site, route)
    page = RoutePage(site, state, site.formats(state), route)
    start, before = state.window.start_ns, state.previous  # up to the same hour: like is compared with like
    earlier = route_rows(
        site.rollups(before, ("route", "provider", "model", "tier"), state.where(route=(route,))),
        page.prefs,
        (),
        (),
    )
    was = earlier[0] if earlier and site.reaches_back(state) else None
    now = page.row.quality if page.row is not None else None
    then = None if was is None else quality_of(was.sums, now.score if now else "")
    names = ["quality", "latency", "cost", "errors", "mix"]
    if page.cascade is not None:
        names.append("cascade")
    split = page.sample.make().split if page.row is not None else None
    return Week(
        route,
        page,
        was,
        compared(now.interval if now else None, then.interval if then else None),
        [
            a
            for a in site.store.alerts(route=route)
            if a.state != "resolved" or (a.resolved_ns or 0) >= start or a.opened_ns >= start
        ],
        [
            Picture(d.title, d.note or d.chart.label, _address(d.chart, d.title))
            for d in (page.draw(name) for name in names)
        ],
        split,
        None
        if split is None
        else Picture("Change by part", split.chart.label, _address(split.chart, "Change by part")),
    )


def _week(site: Site, route: str) -> State:
    state = parse(
        [("range", "7d"), ("route", route)], now_ns=site.now_ns, default_zone=site.preferences().zone
    )
    return replace(state, window=named_window("7d", site.now_ns, state.zone))


def _address(chart: Chart, title: str) -> str:
    """A chart as a data address: an image cannot run anything, whatever a name in it says."""
    svg = chart.standalone(title, 720)
    return "data:image/svg+xml;base64," + b64encode(svg.encode()).decode()


def router(site: Site) -> APIRouter:
    pages = APIRouter()

    @pages.get("/report")
    def weekly(request: Request) -> Response:
        routes = site.state(request).filters.get("route", ())
        if not routes:
            raise HTTPException(404, "Name a route: /report?route=…")
        try:
            html = _report(site, routes)
        except LookupError as error:
            raise HTTPException(404, str(error)) from error
        name = file_name(f"tierlight-{routes[0]}-{fmt.at(site.now_ns, site.state(request).zone):%Y-%m-%d}")
        return Response(
            html,
            media_type="text/html; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}.html"'},
        )

    return pages
