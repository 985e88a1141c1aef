"""The calls behind a number: filtered, sorted, paged by key, with totals that follow the filter. Never reads bodies."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response

from tierlight.semconv import TIERS
from tierlight_collector.records import HOUR_NS, CallPage, CallRow, Cursor, Filters, Rollup, TimeRange
from tierlight_collector.rollup import percentile, total
from tierlight_collector.stores.protocol import Order

from . import fmt
from .csvout import Cell, csv_response, json_response
from .routetable import rate
from .site import Panel, Site
from .urlstate import PAGE_ROWS, State

VIEWS = (
    ("", "All"),
    ("errors", "Errors"),
    ("slowest", "Slowest"),
    ("costliest", "Costliest"),
    ("low_quality", "Low quality"),
    ("escalated", "Escalated"),
    ("fallback", "Fallback"),
    ("unpriced", "Unpriced"),
)
# key, head, whether it is a number, the key it sorts by ("" = not sortable)
COLUMNS = (
    ("route", "Route", False, ""),
    ("model", "Model", False, ""),
    ("input", "In", True, ""),
    ("output", "Out", True, ""),
    ("cached", "Cached", True, ""),
    ("cost", "Cost", True, "cost"),
    ("latency", "Latency", True, "latency"),
    ("ttft", "First token", True, ""),
    ("score", "Score", False, ""),
    ("status", "Status", False, ""),
    ("provider", "Provider", False, ""),
    ("version", "Prompt version", False, ""),
    ("session", "Session", False, ""),
    ("user", "User", False, ""),
)
USUAL = tuple(key for key, *_ in COLUMNS[:10])
HEADS = (
    "trace_id", "span_id", "started_at", "route", "tier", "provider", "model", "input_tokens", "output_tokens", "cached_input_tokens", "cost_usd", "latency_ms",
    "ttft_ms", "score", "score_value", "error_type", "attempt_reason", "session_id",
)  # fmt: skip
MOST_EXPORTED = 100_000
LOW_QUALITY = 0.5
MOST_SORTED = 2_000
_SCANNED = 2_000  # calls looked through for one page of low quality: scores are not a sort key of the store


def encode(cursor: Cursor) -> str:
    """A cursor for a URL."""
    return base64.urlsafe_b64encode(f"{cursor.value}.{cursor.seq}".encode()).decode().rstrip("=")


def decode(text: str) -> Cursor | None:
    """The cursor in a URL, None when it is not one of ours.

    >>> decode(encode(Cursor(5, 7))), decode("x!")
    (Cursor(value=5, seq=7), None)
    """
    try:
        plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
        value, _, seq = plain.partition(".")
        return Cursor(int(value), int(seq))
    except (ValueError, binascii.Error):
        return None


class Calls:
    """One page of the list."""

    def __init__(self, site: Site, state: State) -> None:
        self.site, self.state = site, state
        self.view = state.get("view")

    @cached_property
    def where(self) -> Filters:
        view, state = self.view, self.state
        return state.where(
            start_ns=self.from_ns,
            end_ns=state.window.end_ns,
            text=state.get("q"),
            prompt_version=state.filters.get("version", ()),
            error=True if view == "errors" or state.get("status") == "error" else None,
            unpriced=True if view == "unpriced" else None,
            attempt_reason={"escalated": ("escalation",), "fallback": ("fallback",)}.get(view, ()),
        )

    @cached_property
    def cols(self) -> tuple[str, ...]:
        """The columns that are shown, in their own order: those chosen in the address, else the usual ones."""
        chosen = self.state.filters.get("cols", ())
        return tuple(key for key, *_ in COLUMNS if key in chosen) or USUAL

    @property
    def is_ranked(self) -> bool:
        """Whether the list is a ready one with an order of its own."""
        return self.view in ("slowest", "costliest")

    @property
    def order(self) -> Order:
        if self.view == "slowest" or self.state.get("sort") == "latency":
            return "latency"
        if self.view == "costliest" or self.state.get("sort") == "cost":
            return "cost"
        return "time"

    @property
    def descending(self) -> bool:
        return self.state.get("dir", "desc") == "desc"

    @cached_property
    def from_ns(self) -> int:
        """From when on calls are looked at: orders by cost and time have no index, so only the newest are sorted."""
        window = self.state.window
        calls = self.sums.value.calls if self.order != "time" and self.sums.value is not None else 0
        if calls <= MOST_SORTED:
            return window.start_ns
        return window.end_ns - int((window.end_ns - window.start_ns) * MOST_SORTED / calls)

    @property
    def none_there(self) -> bool:
        """Whether the sums say already that a special list is empty: looking for nothing takes longest."""
        sums = self.sums.value
        if sums is None or self.state.get("q") or self.state.filters.get("version"):
            return False
        found = {
            "unpriced": sums.unpriced,
            "escalated": sums.escalations,
            "fallback": sums.fallbacks,
            "errors": sums.errors,
        }
        return found.get(self.view, sums.calls) == 0

    @cached_property
    def page(self) -> Panel[CallPage]:
        _ = self.sums  # asked for first: a panel that waits for another one may wait for ever
        return self.site.panel(self._page)

    def _page(self) -> CallPage:
        after = decode(self.state.get("cursor")) if self.state.get("cursor") else None
        if self.none_there:
            return CallPage((), None)
        if self.view != "low_quality":
            return self._fetch(after, PAGE_ROWS)
        kept: list[CallRow] = []
        scanned = 0
        while len(kept) < PAGE_ROWS and scanned < _SCANNED:
            page = self._fetch(after, 500)
            scanned += len(page.rows)
            kept += [
                row
                for row in page.rows
                if any(s.value is not None and s.value < LOW_QUALITY for s in row.scores)
            ]
            after = page.next
            if after is None:
                break
        if len(kept) > PAGE_ROWS:  # the page ends at its last row, not at the end of what was looked through
            last = kept[PAGE_ROWS - 1]
            after = Cursor(last.call.start_ns, last.seq)
        return CallPage(tuple(kept[:PAGE_ROWS]), after)

    def _fetch(self, after: Cursor | None, limit: int) -> CallPage:
        return self.site.store.calls(
            self.where, after=after, limit=limit, order=self.order, descending=self.descending
        )

    @cached_property
    def next(self) -> str:
        page = self.page.value
        return encode(page.next) if page is not None and page.next is not None else ""

    @cached_property
    def sums(self) -> Panel[Rollup]:
        return self.site.panel(lambda: total(self.site.rollups(self.state.window, (), self.state.where())))

    @cached_property
    def summary(self) -> list[str]:
        """What the list adds up to, in words; the counts a special list has in the rollups."""
        sums = self.sums.value
        if sums is None:
            return []
        if self.state.get("q") or self.state.filters.get("version") or self.view == "low_quality":
            return []
        of = f" of {fmt.exact(sums.calls)}"
        special = {
            "errors": sums.errors,
            "escalated": sums.escalations,
            "fallback": sums.fallbacks,
            "unpriced": sums.unpriced,
        }
        if self.view in special:
            n = special[self.view]
            return [f"{fmt.plural(n, 'call')}{of}", fmt.percent(rate(n, sums.calls))]
        return [
            fmt.plural(sums.calls, "call"),
            f"{fmt.count(sums.input_tokens + sums.output_tokens)} tokens",
            f"{fmt.percent(rate(sums.errors, sums.calls))} errors",
            f"p95 {fmt.duration(percentile(sums.latency, 0.95))}",
        ]

    @cached_property
    def cost(self) -> int | None:
        sums = self.sums.value
        shows = not self.view or self.view in ("slowest", "costliest")
        return (
            sums.cost_nusd
            if sums is not None and shows and self.summary and sums.unpriced < sums.calls
            else None
        )

    @cached_property
    def options(self) -> dict[str, list[str]]:
        """What can be chosen in the filters: all routes, the models of the last day and those chosen; never from the calls."""
        day = TimeRange(self.state.window.end_ns - 24 * HOUR_NS, self.state.window.end_ns)
        models = {p.key[0] for p in self.site.rollups(day, ("model",), Filters(purpose=()))}
        return {
            "route": sorted(r.route for r in self.site.routes())[:500],
            "model": sorted(models.union(self.state.filters.get("model", ())) - {""})[:500],
            "tier": list(TIERS),
        }

    def cells(self) -> Iterator[tuple[Cell, ...]]:
        """Every matching call, page by page: no read transaction stays open while a browser downloads.

        Where the page sorts only the newest calls, the file has all of them, in order of time.
        """
        after: Cursor | None = None
        where, order = self.where, self.order
        if self.from_ns > self.state.window.start_ns:
            where, order = replace(where, start_ns=self.state.window.start_ns), "time"
        for _ in range(MOST_EXPORTED // 500):
            page = self.site.store.calls(
                where, after=after, limit=500, order=order, descending=self.descending
            )
            for row in page.rows:
                if self.view == "low_quality" and not any(
                    s.value is not None and s.value < LOW_QUALITY for s in row.scores
                ):
                    continue
                yield call_cells(row)
            after = page.next
            if after is None:
                return


def call_cells(row: CallRow) -> tuple[Cell, ...]:
    """One call as a line of a file."""
    call = row.call
    score = row.scores[0] if row.scores else None
    return (
        call.trace_id.hex(),
        call.span_id.hex(),
        fmt.iso(call.start_ns),
        call.route,
        call.tier,
        call.provider,
        call.model,
        call.input_tokens,
        call.output_tokens,
        call.cached_input_tokens,
        None if call.cost_nusd is None else call.cost_nusd / fmt.NANO,
        milliseconds(call.duration_ns),
        milliseconds(call.ttft_ns),
        "" if score is None else score.name,
        None if score is None else score.value,
        call.error_type,
        call.attempt_reason,
        call.session_id,
    )


def milliseconds(ns: int | None) -> float | None:
    """Nanoseconds as milliseconds, unknown stays unknown."""
    return None if ns is None else ns / 1e6


def router(site: Site) -> APIRouter:
    pages = APIRouter()

    @pages.get("/calls")
    def calls(request: Request) -> Response:
        state = site.state(request)
        if state.get("cursor") and decode(state.get("cursor")) is None:
            raise HTTPException(400, "This page mark is not one of ours. Open the list again from its start.")
        if set(state.filters.get("cols", ())) == set(USUAL):
            state = replace(state, filters={k: v for k, v in state.filters.items() if k != "cols"})
        model = {"p": Calls(site, state), "views": VIEWS, "ms": milliseconds, "columns": COLUMNS}
        return site.render(
            request, "calls.html", state=state, page="calls", title="Calls", blocks=("rows",), model=model
        )

    @pages.get("/calls.csv")
    def as_csv(request: Request) -> Response:
        return csv_response("calls", HEADS, Calls(site, site.state(request)).cells())

    @pages.get("/calls.json")
    def as_json(request: Request) -> Response:
        rows = [
            cells for cells, _ in zip(Calls(site, site.state(request)).cells(), range(1000), strict=False)
        ]
        return json_response(HEADS, rows)

    return pages
