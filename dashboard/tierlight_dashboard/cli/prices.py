"""`tierlight prices show | update` and `tierlight reprice`: which prices are used, and pricing stored calls again."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from tierlight.errors import ConfigurationError
from tierlight.pricing import PriceBook
from tierlight_collector.errors import CollectorError
from tierlight_collector.prices import (
    PriceInUse,
    age_days,
    fetch_list,
    open_book,
    own_prices,
    prices_in_use,
    save_list,
)
from tierlight_collector.records import Filters, TimeRange
from tierlight_collector.reprice import RepriceLine, apply, plan
from tierlight_collector.stores.protocol import Store

from ..analysis.wording import money
from .options import FormatOption, PricesOption, StoreOption, default_list, fail, reading, writing
from .output import Format, emit

DAY_NS = 86_400_000_000_000
SHOWN = (
    "provider", "model", "tier", "calls", "unpriced", "cost_usd", "input_usd", "cached_usd", "output_usd",
    "source", "retires",
)  # fmt: skip
REPRICED = (
    "provider", "model", "calls", "changed", "input_tokens", "output_tokens", "old_usd", "new_usd",
    "unpriced_before", "unpriced_after",
)  # fmt: skip
DateOption = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="A day, UTC.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    group = typer.Typer(help="Prices in use; USD per million tokens.", no_args_is_help=True)
    group.command()(show)
    group.command()(update)
    app.add_typer(group, name="prices")
    app.command()(reprice)


def show(
    store: StoreOption,
    format: FormatOption = Format.table,
    prices: PricesOption = None,
    days: Annotated[int, typer.Option(help="Models called in this many days.", min=1, max=400)] = 28,
) -> None:
    """The models that were called, with their prices today, unpriced ones first."""
    now_ns = time.time_ns()
    with reading(store) as opened:
        book = _book(prices, opened)
        found = prices_in_use(opened, book, TimeRange(now_ns - days * DAY_NS, now_ns))
    emit(map(_price_row, found), SHOWN, format, empty="No calls in that time.")
    if format is Format.table:
        typer.echo(f"prices {book.version}, {age_days(book, date.today())} days old")


def update() -> None:
    """Fetch the newest list prices; the only command that asks the network, and only when you run it."""
    try:
        with httpx.Client(timeout=30.0, follow_redirects=False) as client:
            payload = fetch_list(client)
        save_list(payload, default_list())
    except (CollectorError, ConfigurationError, OSError) as error:
        raise fail(error) from error
    typer.echo(f"saved {default_list()}; a running server takes it at its next start")


def reprice(
    store: StoreOption,
    format: FormatOption = Format.table,
    prices: PricesOption = None,
    since: DateOption = None,
    until: DateOption = None,
    route: Annotated[list[str] | None, typer.Option(help="Only this route; may be repeated.")] = None,
    model: Annotated[str, typer.Option(help="Only this model.")] = "",
    only_unpriced: Annotated[
        bool, typer.Option("--only-unpriced", help="Only calls without a cost.")
    ] = False,
    write: Annotated[
        bool, typer.Option("--apply/--dry-run", help="Write the new costs; a dry run only looks.")
    ] = False,
) -> None:
    """Price stored calls again. Without --apply nothing changes; with it the old costs are kept as history."""
    where = Filters(
        route=tuple(route or ()),
        purpose=(),
        unpriced=True if only_unpriced else None,
        start_ns=_ns(since),
        end_ns=_ns(until),
    )
    with (writing if write else reading)(store) as opened:
        book = _book(prices, opened)
        report = (apply if write else plan)(opened, book, where, model=model)
    emit(map(_reprice_row, report.lines), REPRICED, format, empty="No calls match.")
    if format is Format.table:
        total = report.total
        typer.echo(
            f"{total.changed:,} of {total.calls:,} calls {'changed' if write else 'would change'}: "
            f"{money(total.old_nusd)} → {money(total.new_nusd)} at {report.price_version}"
        )


def _book(prices: Path | None, store: Store) -> PriceBook:
    try:
        return open_book(prices, default_list(), own_prices(store.settings()))
    except (ConfigurationError, OSError) as error:
        raise fail(error) from error


def _ns(day: datetime | None) -> int:
    return 0 if day is None else int(day.replace(tzinfo=UTC).timestamp()) * 1_000_000_000


def _price_row(price: PriceInUse) -> dict[str, Any]:
    quote = price.quote
    return {
        "provider": price.provider or None,
        "model": price.model,
        "tier": price.tier or None,
        "calls": price.calls,
        "unpriced": price.unpriced,
        "cost_usd": price.cost_nusd / 1e9 if price.calls > price.unpriced else None,
        "input_usd": float(quote.input_usd) if quote and quote.input_usd is not None else None,
        "cached_usd": float(quote.cached_usd) if quote and quote.cached_usd is not None else None,
        "output_usd": float(quote.output_usd) if quote and quote.output_usd is not None else None,
        "source": quote.source if quote else None,
        "retires": price.retires.isoformat() if price.retires else None,
    }


def _reprice_row(line: RepriceLine) -> dict[str, Any]:
    return {
        "provider": line.provider or None,
        "model": line.model,
        "calls": line.calls,
        "changed": line.changed,
        "input_tokens": line.input_tokens,
        "output_tokens": line.output_tokens,
        "old_usd": line.old_nusd / 1e9,
        "new_usd": line.new_nusd / 1e9,
        "unpriced_before": line.unpriced_before,
        "unpriced_after": line.unpriced_after,
    }
