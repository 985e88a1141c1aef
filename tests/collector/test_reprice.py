"""Stored calls priced again: a look changes nothing, writing keeps the past, twice is once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tierlight.pricing import PriceBook
from tierlight_collector import reprice
from tierlight_collector.costing import PRICE_ESTIMATED, Costing
from tierlight_collector.records import (
    Batch,
    CallRecord,
    Filters,
    NormalisedSpan,
    Resource,
    RouteHints,
    SpanRecord,
    TimeRange,
)
from tierlight_collector.stores import open_store
from tierlight_collector.stores.protocol import Store

AT_NS = 1_795_000_000_000_000_000
EVER = TimeRange(0, 2**62)
DEARER = PriceBook.from_toml(
    b'[[price]]\nprovider = "openai"\nmodel = "gpt-4o-mini"\ninput = 1\noutput = 2\n'
    b'[[price]]\nprovider = "openai"\nmodel = "house-model"\ninput = 10\noutput = 10\n'
)


def _call(index: int, **fields: object) -> CallRecord:
    call = CallRecord(
        trace_id=index.to_bytes(16),
        span_id=index.to_bytes(8),
        parent_span_id=b"",
        name="chat",
        start_ns=AT_NS + index * 1_000_000_000,
        arrived_ns=AT_NS,
        duration_ns=1_000_000_000,
        ttft_ns=None,
        operation="chat",
        provider="openai",
        request_model="gpt-4o-mini",
        response_model="",
        route="support.reply",
        route_source="declared",
        tier="mid",
        input_tokens=1000,
        output_tokens=100,
        response_id=f"resp-{index}",
        call_id=f"call-{index}",
    )
    return Costing(PriceBook.default())(replace(call, **fields))  # type: ignore[arg-type]


def _batch(*calls: CallRecord) -> Batch:
    resource = Resource({})
    return Batch(
        spans=tuple(
            NormalisedSpan(
                SpanRecord(
                    call.trace_id,
                    call.span_id,
                    call.parent_span_id,
                    call.name,
                    3,
                    call.start_ns,
                    call.start_ns + (call.duration_ns or 0),
                    0,
                    "",
                    call.scope,
                    "",
                    {},
                    (),
                    resource,
                ),
                "call",
                RouteHints(declared=call.route),
                call,
            )
            for call in calls
        ),
        arrived_ns=AT_NS,
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path}/tierlight.db")
    opened.append(
        _batch(
            _call(1),
            _call(2),
            _call(3, request_model="house-model"),
            _call(4, cost_nusd=77, cost_source="provider"),
            _call(5, request_model="gpt-5-nano"),
        )
    )
    yield opened
    opened.close()


def _costs(store: Store) -> dict[int, tuple[int | None, str]]:
    rows = store.calls(Filters(), limit=100).rows
    return {int.from_bytes(row.call.span_id): (row.call.cost_nusd, row.call.cost_source) for row in rows}


def test_a_look_says_what_would_change_and_changes_nothing(store: Store) -> None:
    before = _costs(store)
    report = reprice.plan(store, DEARER, Filters())
    assert _costs(store) == before
    assert not report.applied
    assert report.price_version.startswith("user:")
    lines = {line.model: line for line in report.lines}
    assert report.lines[0].model == "house-model"  # the largest change first
    mini, house = lines["gpt-4o-mini"], lines["house-model"]
    assert (mini.calls, mini.changed, mini.input_tokens) == (3, 2, 3000)
    assert (mini.old_nusd, mini.new_nusd) == (2 * 210_000 + 77, 2 * 1_200_000 + 77)
    assert (house.unpriced_before, house.unpriced_after, house.new_nusd) == (1, 0, 11_000_000)
    assert lines["gpt-5-nano"].changed == 0
    total = report.total
    assert (total.calls, total.changed, total.unpriced_before, total.unpriced_after) == (5, 3, 1, 0)


def test_writing_does_what_the_look_said_and_sums_follow(store: Store) -> None:
    planned = reprice.plan(store, DEARER, Filters())
    written = reprice.apply(store, DEARER, Filters())
    assert (written.applied, written.lines) == (True, planned.lines)
    assert _costs(store)[1] == (1_200_000, "user")
    assert _costs(store)[3] == (11_000_000, "user")
    (rollup,) = store.rollups(EVER)
    assert (rollup.cost_nusd, rollup.unpriced) == (planned.total.new_nusd, 0)
    row = store.call((1).to_bytes(16), (1).to_bytes(8))
    assert row is not None
    assert row.call.price_version.startswith("user:")
    assert (row.call.cost_input_nusd, row.call.cost_output_nusd) == (1_000_000, 200_000)
    assert row.call.wire_cost_nusd is None


def test_the_past_cost_is_kept(store: Store) -> None:
    reprice.apply(store, DEARER, Filters())
    (past,) = store.cost_history((1).to_bytes(16), (1).to_bytes(8))
    assert (past.cost_nusd, past.cost_source, past.price_version[:3]) == (210_000, "price_book", "gp:")
    (unknown,) = store.cost_history((3).to_bytes(16), (3).to_bytes(8))
    assert (unknown.cost_nusd, unknown.unpriced_reason) == (None, "unknown_model")
    assert store.cost_history((5).to_bytes(16), (5).to_bytes(8)) == []


def test_writing_twice_is_writing_once(store: Store) -> None:
    reprice.apply(store, DEARER, Filters())
    after = _costs(store)
    again = reprice.apply(store, DEARER, Filters())
    assert again.total.changed == 0
    assert _costs(store) == after
    assert len(store.cost_history((1).to_bytes(16), (1).to_bytes(8))) == 1


def test_going_back_to_list_prices_restores_every_cost(store: Store) -> None:
    before = _costs(store)
    reprice.apply(store, DEARER, Filters())
    reprice.apply(store, PriceBook.default(), Filters())
    assert _costs(store) == before


def test_only_the_meant_calls_are_priced_again(store: Store) -> None:
    reprice.apply(store, DEARER, Filters(unpriced=True))
    assert _costs(store)[1] == (210_000, "price_book")
    assert _costs(store)[3] == (11_000_000, "user")
    assert reprice.plan(store, DEARER, Filters(), model="gpt-5-nano").total.calls == 1
    assert reprice.plan(store, DEARER, Filters(route=("other",))).total.calls == 0


def test_more_calls_than_a_page_are_all_priced_once(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/many.db")
    seen: list[int] = []
    try:
        store.append(_batch(*(_call(index) for index in range(1, 1203))))
        report = reprice.apply(store, DEARER, Filters(), progress=seen.append)
        assert (report.total.calls, report.total.changed) == (1202, 1202)
        (rollup,) = store.rollups(EVER)
        assert rollup.cost_nusd == 1202 * 1_200_000
    finally:
        store.close()
    assert seen == [500, 1000, 1202]


def test_price_that_a_list_has_lost_stays(store: Store) -> None:
    kept = replace(
        _call(6, request_model="house-model"), cost_nusd=5, cost_source="price_book", price_version="gp:0"
    )
    store.append(_batch(kept))
    reprice.apply(store, PriceBook.default(), Filters())
    assert _costs(store)[6] == (5, "price_book")


def test_call_of_a_table_without_history_is_marked_estimated(tmp_path: Path) -> None:
    call = _call(1, provider="cohere", request_model="rerank-v3.5", operation="rerank", input_tokens=None)
    assert call.cost_nusd == 2_000_000
    assert PRICE_ESTIMATED in call.flags
