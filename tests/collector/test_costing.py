"""Where the cost of a call comes from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tierlight.pricing import PriceBook
from tierlight_collector.costing import Costing
from tierlight_collector.records import CallRecord

COSTING = Costing(PriceBook.default())
CALL = CallRecord(
    trace_id=b"t" * 16,
    span_id=b"s" * 8,
    parent_span_id=b"",
    name="chat gpt-4o-mini",
    start_ns=1_795_000_000_000_000_000,
    arrived_ns=1_795_000_000_000_000_000,
    duration_ns=1_000_000_000,
    ttft_ns=None,
    operation="chat",
    provider="openai",
    request_model="gpt-4o-mini",
    response_model="",
    route="r",
    route_source="",
    tier="small",
    input_tokens=120,
    output_tokens=34,
)


def test_the_price_book_prices_the_call() -> None:
    priced = COSTING(CALL)
    assert (priced.cost_nusd, priced.cost_source) == (38_400, "price_book")
    assert priced.price_version.startswith("gp:")


@pytest.mark.parametrize("source", ["caller", "provider", "cache"])
def test_what_the_caller_or_provider_said_is_kept(source: str) -> None:
    said = replace(CALL, cost_nusd=7, cost_source=source)
    assert COSTING(said) == said


def test_an_unknown_model_has_no_cost() -> None:
    priced = COSTING(replace(CALL, request_model="gpt-5-turbo"))
    assert (priced.cost_nusd, priced.unpriced_reason) == (None, "unknown_model")


def test_unknown_usage_has_no_cost() -> None:
    priced = COSTING(replace(CALL, input_tokens=None, output_tokens=None))
    assert (priced.cost_nusd, priced.unpriced_reason) == (None, "no_usage")


def test_the_emitters_figure_is_the_last_resort_and_says_so() -> None:
    call = replace(CALL, request_model="my-own", wire_cost_nusd=900, wire_cost_source="wire:openlit")
    priced = COSTING(call)
    assert (priced.cost_nusd, priced.cost_source) == (900, "wire:openlit")


def test_a_zero_of_an_emitter_with_unknown_usage_is_no_price() -> None:
    call = replace(CALL, request_model="my-own", input_tokens=None, wire_cost_nusd=0, wire_cost_source="x")
    assert COSTING(call).cost_nusd is None
