"""Price stored calls again: after a price file was written, a table updated, an unknown model become known.

A look first: `plan` only reads. `apply` reads the same way and writes; the old cost of each call that changes is
kept as history. What the caller or the provider said, and answers of a local cache, are never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tierlight.pricing import PriceBook

from .costing import PRICE_ESTIMATED, STATED, Costing
from .records import CallRecord, CallRow, CostChange, Filters
from .stores.protocol import FactStore

PAGE: Final = 500
Progress = Callable[[int], None]
_COSTS: Final = (
    "cost_nusd",
    "cost_input_nusd",
    "cost_cached_nusd",
    "cost_cache_write_nusd",
    "cost_output_nusd",
    "unpriced_reason",
)

_UNPRICED: Final[Mapping[str, Any]] = {
    "cost_nusd": None,
    "cost_input_nusd": None,
    "cost_cached_nusd": None,
    "cost_cache_write_nusd": None,
    "cost_output_nusd": None,
    "cost_source": "",
    "price_version": "",
    "unpriced_reason": "",
}


@dataclass(slots=True)
class RepriceLine:
    """One model's calls before and after. Totals cover the calls whose cost is known; the others are counted."""

    provider: str
    model: str
    calls: int = 0
    changed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    old_nusd: int = 0
    new_nusd: int = 0
    unpriced_before: int = 0
    unpriced_after: int = 0


@dataclass(slots=True)
class RepriceReport:
    """What pricing again changes, by model, the largest change first; `applied` says whether it was written."""

    price_version: str
    applied: bool = False
    lines: list[RepriceLine] = field(default_factory=list)

    @property
    def total(self) -> RepriceLine:
        """All models together."""
        total = RepriceLine("", "")
        for line in self.lines:
            for name in ("calls", "changed", "input_tokens", "output_tokens", "old_nusd", "new_nusd"):
                setattr(total, name, getattr(total, name) + getattr(line, name))
            total.unpriced_before += line.unpriced_before
            total.unpriced_after += line.unpriced_after
        return total


def change_of(row: CallRow, costing: Costing) -> CostChange | None:
    """What the call costs by that book, None if that is what it costs already.

    A list that no longer has the model does not take a price away; a price of the user's own file that he took
    out of it does.
    """
    call = row.call
    if call.cost_nusd is not None and call.cost_source in STATED:
        return None
    flags = tuple(flag for flag in call.flags if flag != PRICE_ESTIMATED)
    priced = costing(replace(call, flags=flags, **_UNPRICED))
    if (
        call.cost_nusd is not None
        and call.cost_source != "user"
        and priced.cost_source not in ("user", "price_book")
    ):
        return None
    if all(getattr(priced, name) == getattr(call, name) for name in _COSTS):
        return None
    return CostChange(
        seq=row.seq,
        cost_nusd=priced.cost_nusd,
        cost_input_nusd=priced.cost_input_nusd,
        cost_cached_nusd=priced.cost_cached_nusd,
        cost_cache_write_nusd=priced.cost_cache_write_nusd,
        cost_output_nusd=priced.cost_output_nusd,
        cost_source=priced.cost_source,
        price_version=priced.price_version,
        unpriced_reason=priced.unpriced_reason,
        is_estimated=PRICE_ESTIMATED in priced.flags,
    )


def plan(
    store: FactStore, book: PriceBook, where: Filters, *, model: str = "", progress: Progress | None = None
) -> RepriceReport:
    """What `apply` would change: reads only.

    Args:
        where: Which calls; `unpriced=True` for those without a cost. Give `purpose=()` for all purposes.
        model: Only calls that asked for or got this model; "" = all.
        progress: Called after each page with the number of calls looked at.
    """
    report = RepriceReport(book.version)
    for _ in _pages(store, book, where, model, report, progress):
        pass
    return _sorted(report)


def apply(
    store: FactStore, book: PriceBook, where: Filters, *, model: str = "", progress: Progress | None = None
) -> RepriceReport:
    """Write what `plan` shows, a page of calls in each transaction; a second time changes nothing.

    Interrupted, it has priced a part of the calls; run it again for the rest.
    """
    report = RepriceReport(book.version, applied=True)
    for changes in _pages(store, book, where, model, report, progress):
        store.reprice(changes)
    return _sorted(report)


def _pages(
    store: FactStore,
    book: PriceBook,
    where: Filters,
    model: str,
    report: RepriceReport,
    progress: Progress | None,
) -> Iterator[list[CostChange]]:
    costing = Costing(book)
    lines: dict[tuple[str, str], RepriceLine] = {}
    seen = 0
    for rows in _rows(store, where):
        changes = []
        for row in rows:
            call = row.call
            if model and model not in (call.request_model, call.response_model):
                continue
            change = change_of(row, costing)
            key = (call.provider, call.model)
            if key not in lines:
                lines[key] = RepriceLine(*key)
                report.lines.append(lines[key])
            _count(lines[key], call, change)
            if change is not None:
                changes.append(change)
        if changes:
            yield changes
        seen += len(rows)
        if progress is not None:
            progress(seen)


def _rows(store: FactStore, where: Filters) -> Iterable[tuple[CallRow, ...]]:
    # Oldest first: a call that arrives meanwhile comes behind the cursor's end, and new costs move nothing.
    page = store.calls(where, limit=PAGE, descending=False)
    while True:
        yield page.rows
        if page.next is None:
            return
        page = store.calls(where, after=page.next, limit=PAGE, descending=False)


def _count(line: RepriceLine, call: CallRecord, change: CostChange | None) -> None:
    new_nusd = call.cost_nusd if change is None else change.cost_nusd
    line.calls += 1
    line.changed += change is not None
    line.input_tokens += call.input_tokens or 0
    line.output_tokens += call.output_tokens or 0
    line.old_nusd += call.cost_nusd or 0
    line.new_nusd += new_nusd or 0
    line.unpriced_before += call.cost_nusd is None
    line.unpriced_after += new_nusd is None


def _sorted(report: RepriceReport) -> RepriceReport:
    report.lines.sort(key=lambda line: (-abs(line.new_nusd - line.old_nusd), line.provider, line.model))
    return report
