"""Marks on charts: each at the moment of the first call of something new, with a way to the calls round it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from dashboard import seed
from dashboard.conftest import Browser
from tierlight.pricing import PriceBook
from tierlight_collector.records import Batch, Filters, NormalisedSpan, SpanRecord
from tierlight_collector.stores import open_store
from tierlight_collector.stores.protocol import Store
from tierlight_dashboard.views import charts, fmt, markers
from tierlight_dashboard.views.buckets import buckets
from tierlight_dashboard.views.site import DashboardSettings, Site
from tierlight_dashboard.views.urlstate import parse

ROUTE = "answer_customer"


def versioned(span: NormalisedSpan) -> NormalisedSpan:
    """Three days before the end a model, a day later an app version is new; both stay."""
    assert span.call is not None
    at = span.call.start_ns
    version = "2.1.0" if at >= seed.NOW_NS - 2 * seed.DAY_NS else "2.0.0"
    resource = replace(span.span.resource, attributes={"service.version": version})
    call = span.call
    if at >= seed.NOW_NS - 3 * seed.DAY_NS and call.start_ns % 2:
        call = replace(call, request_model="claude-sonnet-5-6", response_model="claude-sonnet-5-6")
    return replace(span, span=replace(span.span, resource=resource), call=call)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Twenty days of one route, whose prompt, model and app version change once each."""
    path: Path = tmp_path_factory.mktemp("marks") / "t.db"
    store = open_store(f"sqlite:///{path}", now_ns=lambda: seed.NOW_NS)
    own = [s for s in seed.spans(days=20, volume=0.4) if s.call is not None and s.call.route == ROUTE]
    store.append(Batch(tuple(map(versioned, own))))
    yield store
    store.close()


def marks_of(store: Store, book: PriceBook | None = None) -> list[charts.Mark]:
    site = Site(store, DashboardSettings(clock=lambda: seed.NOW_NS, cache_seconds=0, book=book))
    try:
        state = parse([("range", "30d")], now_ns=seed.NOW_NS)
        columns = buckets(state, site.first_ns())
        used = [("anthropic", "claude-sonnet-5-5")]
        series = site.series(columns.window, columns.step, "UTC", ("model",), state.where(route=(ROUTE,)))
        return markers.marks(site, state, columns, ROUTE, used, series)
    finally:
        site.close()


def first(store: Store, **where: object) -> str:
    filters = Filters(route=(ROUTE,), **where)  # type: ignore[arg-type]
    return fmt.moment(
        store.calls(filters, limit=1, descending=False).rows[0].call.start_ns,
        parse([], now_ns=seed.NOW_NS).zone,
    )


def test_a_new_prompt_and_a_new_model_are_marked_at_their_first_call(store: Store) -> None:
    found = {mark.label: mark.when for mark in marks_of(store)}
    assert found["prompt v14"] == first(store, prompt_version=("v14",))
    assert found["model claude-sonnet-5-6"] == first(store, model=("claude-sonnet-5-6",))
    assert "prompt v13" not in found, "what the window begins with is nothing new"
    assert not any(label.endswith("claude-opus-4-7") for label in found)


def test_a_new_version_of_the_app_is_found_between_two_calls(store: Store) -> None:
    found = {mark.label: mark.when for mark in marks_of(store)}
    assert found["app 2.1.0"] == first(store, start_ns=seed.NOW_NS - 2 * seed.DAY_NS)


def test_a_price_is_marked_on_the_day_it_begins(store: Store) -> None:
    assert not [m for m in marks_of(store) if m.label.startswith("price")]
    text = b"""
[[price]]
provider = "anthropic"
model = "claude-sonnet-5-5"
input = 3
output = 15

[[price]]
provider = "anthropic"
model = "claude-sonnet-5-5"
input = 2
output = 10
valid_from = 2026-11-12
"""
    book = PriceBook.from_toml(text)
    assert [m.when for m in marks_of(store, book) if m.label.startswith("price")] == ["12 Nov 00:00"]


def test_a_mark_leads_to_the_calls_of_the_two_hours_round_it(month: Browser) -> None:
    page = month.text(f"/routes/{seed.DRIFTING}")
    found = re.search(r'quality ↓</a> \(<a href="([^"]+)"', page)
    assert found
    asked = parse_qs(urlsplit(found.group(1).replace("&amp;", "&")).query)
    assert asked["route"] == [seed.DRIFTING]
    assert asked["from"] == ["2026-11-16T03:00:00Z"]
    assert asked["to"] == ["2026-11-16T05:00:00Z"]
    assert '"><title>16 Nov 04:00 latency ↑, quality ↓: calls around it' in page


def test_what_the_past_told_is_not_asked_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(store, DashboardSettings(clock=lambda: seed.NOW_NS, cache_seconds=0))
    state = parse([("range", "30d")], now_ns=seed.NOW_NS)
    columns = buckets(state, site.first_ns())
    asked: list[object] = []
    plain = store.trace

    def counted(trace_id: bytes, limit: int = 500) -> list[SpanRecord]:
        asked.append(trace_id)
        return plain(trace_id, limit)

    monkeypatch.setattr(store, "trace", counted)
    first = markers.marks(site, state, columns, ROUTE)
    begun = len(asked)
    assert markers.marks(site, state, columns, ROUTE) == first
    site.close()
    assert begun > 20
    assert len(asked) == begun + 1, "only the column that is not over yet"
