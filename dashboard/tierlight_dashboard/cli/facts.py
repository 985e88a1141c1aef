"""`tierlight routes | calls | alerts | recommendations`: what the store holds, for people and programs."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from tierlight_collector.records import Filters, TimeRange
from tierlight_collector.shapes import CALL_KEYS, alert_json, call_json, recommendation_json, route_json
from tierlight_collector.stores.protocol import Store

from .options import FormatOption, StoreOption, fail, reading
from .output import Format, emit

_UNITS_NS = {"m": 60_000_000_000, "h": 3_600_000_000_000, "d": 86_400_000_000_000}
TABLE_CALLS = 50

ROUTE_COLUMNS = (
    "route", "calls", "errors", "cost_usd", "unpriced", "latency_p50_ms", "latency_p95_ms",
    "input_tokens", "output_tokens", "scored", "last_at",
)  # fmt: skip
CALL_COLUMNS = (
    "started_at", "route", "tier", "provider", "request_model", "input_tokens", "output_tokens",
    "cost_usd", "latency_ms", "error_type", "trace_id", "span_id",
)  # fmt: skip
ALERT_COLUMNS = ("id", "severity", "state", "kind", "route", "opened_at", "calls_since_change", "sentence")
ADVICE_COLUMNS = (
    "route", "action", "state", "current_model", "candidate_model", "saving_low_usd", "saving_high_usd", "sentence",
)  # fmt: skip

SinceOption = Annotated[str, typer.Option("--since", help="Only the last 30m, 24h, 7d, ...; empty = all.")]
RouteOption = Annotated[list[str] | None, typer.Option("--route", help="Only this route; may be repeated.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command()(routes)
    app.command()(calls)
    app.command()(alerts)
    app.command()(recommendations)
    app.command()(report)


def routes(store: StoreOption, format: FormatOption = Format.table, since: SinceOption = "") -> None:
    """Routes with their calls, cost, latency and errors."""
    when = TimeRange(since_ns(since), time.time_ns() + _UNITS_NS["d"])
    with reading(store) as opened:
        sums = {rollup.key[0]: rollup for rollup in opened.rollups(when, ("route",), Filters())}
        rows = [
            route_json(info, replace(sums[info.route], key=()))
            for info in opened.routes()
            if info.route in sums
        ]
    emit(rows, ROUTE_COLUMNS, format, empty="No calls yet. Send some, or run `tierlight demo`.")


def calls(
    store: StoreOption,
    format: FormatOption = Format.table,
    route: RouteOption = None,
    since: SinceOption = "",
    purpose: Annotated[
        str, typer.Option(help="production, shadow, judge, replay, test or all.")
    ] = "production",
    errors: Annotated[bool, typer.Option("--errors", help="Only failed calls.")] = False,
    limit: Annotated[
        int | None, typer.Option(help="At most this many; a table shows 50 unless told.")
    ] = None,
) -> None:
    """Calls, newest first; each counted once, however many spans told of it."""
    where = Filters(
        route=tuple(route or ()),
        purpose=() if purpose == "all" else (purpose,),
        error=True if errors else None,
        start_ns=since_ns(since),
    )
    if limit is None and format is Format.table:
        limit = TABLE_CALLS
    with reading(store) as opened:
        rows = _call_rows(opened, where, limit)
        columns = CALL_COLUMNS if format is Format.table else tuple(CALL_KEYS)
        emit(rows, columns, format, empty="No calls match.")


def alerts(
    store: StoreOption,
    format: FormatOption = Format.table,
    route: Annotated[str | None, typer.Option(help="Only this route.")] = None,
    all: Annotated[bool, typer.Option("--all", help="Also the resolved ones.")] = False,
) -> None:
    """Drift alerts with their effect, since when, and the evidence."""
    with reading(store) as opened:
        found = opened.alerts(route=route, states=() if all else ("open", "recovering"))
    emit(map(alert_json, found), ALERT_COLUMNS, format, empty="No open alerts.")


def recommendations(
    store: StoreOption,
    format: FormatOption = Format.table,
    route: Annotated[str | None, typer.Option(help="Only this route.")] = None,
) -> None:
    """What to do with each route's tier, and why."""
    with reading(store) as opened:
        found = opened.recommendations(route=route)
    emit(map(recommendation_json, found), ADVICE_COLUMNS, format, empty="Nothing to recommend yet.")


def report(
    store: StoreOption,
    route: Annotated[str, typer.Argument(help="The route's name.")] = "",
    owner: Annotated[
        str, typer.Option(help="All routes of this owner instead, as the settings name it.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Write it there; without it, to standard output.")] = None,
) -> None:
    """The week of one route, or of all routes of one owner, as one self-contained HTML file."""
    from ..views.report import report as weekly
    from ..views.report import report_of

    if bool(route) == bool(owner):
        raise fail("name either a route or --owner")
    with reading(store) as opened:
        try:
            now = time.time_ns()
            page = report_of(opened, owner, now) if owner else weekly(opened, route, now)
        except LookupError as error:
            raise fail(str(error.args[0])) from error
    if out is None:
        typer.echo(page)
    else:
        out.write_text(page, encoding="utf-8")
        typer.echo(str(out))


def _call_rows(store: Store, where: Filters, limit: int | None) -> Iterator[dict[str, Any]]:
    left = limit
    after = None
    while left is None or left > 0:
        page = store.calls(where, after=after, limit=500 if left is None else min(500, left))
        yield from map(call_json, page.rows)
        if page.next is None:
            return
        after = page.next
        left = None if left is None else left - len(page.rows)


def since_ns(since: str) -> int:
    """The moment that long ago, 0 for no limit."""
    if not since:
        return 0
    match = re.fullmatch(r"(\d{1,6})([mhd])", since)
    if match is None:
        raise fail(f"expected --since like 30m, 24h or 7d, got {since!r}")
    return time.time_ns() - int(match[1]) * _UNITS_NS[match[2]]
