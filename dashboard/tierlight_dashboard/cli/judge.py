"""`tierlight check | whatif`: whether a route may pass, and what other models or prices would cost."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from tierlight.errors import ConfigurationError
from tierlight.pricing import PriceBook
from tierlight_collector.errors import CollectorError
from tierlight_collector.prices import open_book
from tierlight_collector.records import Filters, TimeRange
from tierlight_collector.shapes import alert_json
from tierlight_collector.stores.protocol import Store

from ..analysis.preferences import preferences
from ..analysis.whatif import Cell, WhatIf, baseline, price_change, pricer, proposals, uses_of, what_if
from ..watch import check as judge
from .options import FormatOption, PricesOption, StoreOption, default_list, fail, reading
from .output import Format, emit

DAY_NS = 86_400_000_000_000
WORLDS = (
    "route", "calls", "flagship_usd", "flagship_basis", "today_usd", "today_basis", "proposed_model",
    "proposed_usd", "proposed_basis", "note",
)  # fmt: skip
PRICES = ("route", "model", "now_usd", "then_usd", "more_usd", "basis")


class Grave(StrEnum):
    """What `--fail-on` takes."""

    page = "page"
    ticket = "ticket"


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command()(check)
    app.command()(whatif)


def check(
    store: StoreOption,
    route: Annotated[str, typer.Argument(help="A route; without it every route.")] = "",
    fail_on: Annotated[Grave, typer.Option("--fail-on", help="This severity and graver.")] = Grave.page,
    format: FormatOption = Format.table,
) -> None:
    """Fail with exit code 1 when a route has an open alert that nobody muted; for pipelines."""
    with reading(store) as opened:
        if route and route not in {info.route for info in opened.routes()}:
            raise fail(f"expected a route that has calls, got {route!r}: `tierlight routes` lists them")
        result = judge(opened, route, fail_on.value, time.time_ns())
    if format is Format.table:
        typer.echo(result.sentence)
        for alert in result.alerts:
            typer.echo(f"  [{alert.severity}] {alert.sentence}")
    else:
        row = {
            "route": result.route,
            "passes": result.passes,
            "sentence": result.sentence,
            "alerts": [alert_json(alert) for alert in result.alerts],
            "learning": [
                {"route": row.stream[1], "signal": row.signal, "learned": row.learned, "needed": row.needed}
                for row in result.learning
            ],
        }
        emit([row], tuple(row), format, empty="")
    if not result.passes:
        raise typer.Exit(1)


def whatif(
    store: StoreOption,
    format: FormatOption = Format.table,
    days: Annotated[int, typer.Option(help="The last days.", min=1, max=400)] = 28,
    flagship: Annotated[
        str, typer.Option(help="provider/model of the flagship; else the one set, else the dearest in use.")
    ] = "",
    price: Annotated[
        list[str] | None,
        typer.Option(
            help="provider/model=2x, or =IN_FACTORx,OUT_FACTORx: what that change of prices would cost."
        ),
    ] = None,
    prices: PricesOption = None,
) -> None:
    """What the last days would have cost on the flagship, as they were, and as proposed; or at other prices."""
    try:
        book = open_book(prices, default_list())
    except (CollectorError, ConfigurationError) as error:
        raise fail(error) from error
    now_ns = time.time_ns()
    when = TimeRange(now_ns - days * DAY_NS, now_ns)
    with reading(store) as opened:
        if price:
            changes = [_read_price(text) for text in price]
            rows = list(_changed(opened, book, when, changes))
            emit(rows, PRICES, format, empty="No priced calls of these models in that time.")
            return
        found = _worlds(opened, book, when, flagship)
    emit(map(_world_row, found.lines), WORLDS, format, empty="No calls in that time.")
    if format is Format.table and found.lines:
        typer.echo(_summary(found, days))


def _worlds(store: Store, book: PriceBook, when: TimeRange, flagship: str) -> WhatIf:
    rollups = store.rollups(when, ("route", "provider", "model", "tier"), Filters())
    chosen = flagship.replace("/", ":", 1) or preferences(store.settings()).baseline_model
    best = baseline(rollups, chosen)
    return what_if(
        uses_of(rollups),
        best or ("", ""),
        proposals(store.recommendations(), rollups, ("ready", "collecting", "proposed")),
        pricer(book, datetime.fromtimestamp(when.end_ns / 1e9, UTC)),
    )


def _changed(
    store: Store, book: PriceBook, when: TimeRange, changes: list[tuple[str, str, float, float]]
) -> Iterator[dict[str, Any]]:
    uses = uses_of(store.rollups(when, ("route", "provider", "model", "tier"), Filters()))
    price = pricer(book, datetime.fromtimestamp(when.end_ns / 1e9, UTC))
    for provider, model, input_factor, output_factor in changes:
        for route, now, then in price_change(uses, provider, model, input_factor, output_factor, price):
            yield {
                "route": route,
                "model": f"{provider}/{model}",
                "now_usd": now / 1e9,
                "then_usd": then / 1e9,
                "more_usd": (then - now) / 1e9,
                "basis": "estimated",
            }


def _read_price(text: str) -> tuple[str, str, float, float]:
    match = re.fullmatch(r"([^/=]+)/([^=]+)=(\d+(?:\.\d+)?)x(?:,(\d+(?:\.\d+)?)x)?", text)
    if match is None:
        raise fail(f"expected --price like openai/gpt-5-mini=2x or openai/gpt-5-mini=1x,1.5x, got {text!r}")
    return match[1], match[2], float(match[3]), float(match[4] or match[3])


def _world_row(line: Any) -> dict[str, Any]:
    return {
        "route": line.route,
        "calls": line.calls,
        "flagship_usd": _usd(line.flagship),
        "flagship_basis": line.flagship.basis,
        "today_usd": _usd(line.today),
        "today_basis": line.today.basis,
        "proposed_model": line.proposed_model or None,
        "proposed_usd": _usd(line.proposed),
        "proposed_basis": line.proposed.basis,
        "note": line.proposed.note,
    }


def _usd(cell: Cell) -> float | None:
    return None if cell.cost_nusd is None else cell.cost_nusd / 1e9


def _summary(found: WhatIf, days: int) -> str:
    parts = [
        f"last {days} days: ${found.today_nusd / 1e9:,.2f}; as proposed ${found.proposed_nusd / 1e9:,.2f}",
        f"saving measured ${found.saving_on('measured') / 1e9:,.2f}, estimated ${found.saving_on('estimated') / 1e9:,.2f}",
    ]
    if found.flagship_model:
        parts.append(
            f"all on {found.flagship_model} ${found.flagship_nusd / 1e9:,.2f}"
            f" against ${found.today_of_flagship_nusd / 1e9:,.2f} for the routes where both are known"
        )
    if found.unknown_routes:
        parts.append(f"unknown: {', '.join(found.unknown_routes)}")
    return "; ".join(parts)
