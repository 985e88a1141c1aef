"""`tierlight reconcile`: what a provider billed, beside what was traced."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tierlight_collector.errors import BadRequest
from tierlight_collector.reconcile import Reconciled, Traced, read_invoice, reconcile
from tierlight_collector.records import Filters, TimeRange
from tierlight_collector.stores.protocol import Store

from .options import FormatOption, StoreOption, fail, reading
from .output import Format, Row, emit

COLUMNS = (
    "period",
    "provider",
    "model",
    "billed_usd",
    "traced_usd",
    "difference_usd",
    "share",
    "calls",
    "unpriced",
)
EVERYTHING = Filters(purpose=())  # judges and shadows are billed too


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("reconcile")(reconcile_)


def reconcile_(
    invoice: Annotated[
        Path, typer.Argument(help="CSV with the columns provider, day or month, amount (USD), perhaps model.")
    ],
    store: StoreOption,
    format: FormatOption = Format.table,
    tolerance: Annotated[
        float, typer.Option(min=0, help="The part of a billed amount that may be missing or too much.")
    ] = 0.05,
) -> None:
    """Compare an invoice with the stored cost, day by day or month by month (UTC); exit 1 when a line is off.

    Billed above traced: calls that send no spans, calls without a price, or prices that are too low. Billed below:
    discounts, credits, or prices that are too high.
    """
    try:
        lines = read_invoice(invoice.read_text(encoding="utf-8"))
    except (BadRequest, OSError, UnicodeDecodeError) as error:
        raise fail(f"{invoice}: {getattr(error, 'strerror', None) or error}") from error
    with reading(store) as opened:
        found = reconcile(lines, _traced(opened))
    emit([_row(each) for each in found], COLUMNS, format, empty="The invoice has no lines.")
    off = [each for each in found if _is_off(each, tolerance)]
    if off:
        raise fail(f"{len(off)} of {len(found)} lines differ by more than {tolerance:.0%}", code=1)


def _traced(opened: Store) -> list[Traced]:
    by_day = opened.series(TimeRange(0, 2**62), "day", group_by=("provider", "model"), where=EVERYTHING)
    return [
        Traced(f"{day:%Y-%m-%d}", provider, model, sums.calls, sums.unpriced, sums.cost_nusd)
        for day, sums in by_day
        for provider, model in (sums.key,)
    ]


def _row(each: Reconciled) -> Row:
    difference = each.difference_nusd
    return {
        "period": each.period,
        "provider": each.provider,
        "model": each.model or None,
        "billed_usd": None if each.billed_nusd is None else each.billed_nusd / 1e9,
        "traced_usd": each.traced_nusd / 1e9,
        "difference_usd": None if difference is None else difference / 1e9,
        "share": None if each.share is None else round(each.share, 4),
        "calls": each.calls,
        "unpriced": each.unpriced,
    }


def _is_off(each: Reconciled, tolerance: float) -> bool:
    if each.difference_nusd is None:
        return each.traced_nusd > 0
    return abs(each.difference_nusd) > tolerance * abs(each.billed_nusd or 0)
