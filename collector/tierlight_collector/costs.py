"""Freezes the cost of a call when it arrives: what the caller or provider said, else the price book, else why not.

A price that changes later never rewrites what is stored; `reprice` does so on request and keeps the old value.
"""

from __future__ import annotations

from dataclasses import replace

from tierlight.pricing import Cost, PriceBook, Usage

from .records import CallRecord

_SAID = frozenset({"caller", "provider", "cache"})


def usage_of(call: CallRecord) -> Usage:
    """What the call used, in the price book's terms; a rerank call counts as one query."""
    return Usage(
        input_tokens=call.input_tokens,
        output_tokens=call.output_tokens,
        cached_input_tokens=call.cached_input_tokens,
        cache_write_input_tokens=call.cache_write_input_tokens,
        cache_write_1h_input_tokens=call.cache_write_1h_input_tokens,
        reasoning_tokens=call.reasoning_tokens,
        queries=1 if call.operation == "rerank" and not call.error_class else None,
        duration_ns=call.duration_ns,
    )


def price_call(call: CallRecord, book: PriceBook) -> CallRecord:
    """The call with its cost, or with the reason why it has none; never 0 for an unknown price.

    Order: caller, provider or local cache as sent; the book at the call's own time; a price that the sender's
    book gave; the emitter's own figure, marked as such.
    """
    if call.cost_nusd is not None and call.cost_source in _SAID:
        return call
    priced = book.price(
        usage_of(call),
        call.provider,
        call.request_model,
        call.start_ns,
        response_model=call.response_model,
        context=call.service_tier,
    )
    if isinstance(priced, Cost):
        return replace(
            call,
            cost_nusd=priced.nusd,
            cost_input_nusd=priced.input_nusd,
            cost_cached_nusd=priced.cached_nusd,
            cost_cache_write_nusd=priced.cache_write_nusd,
            cost_output_nusd=priced.output_nusd,
            cost_source=priced.source,
            price_version=priced.price_version,
            unpriced_reason="",
        )
    if call.cost_nusd is not None:  # by the sender's book, which may know a price that ours does not
        return call
    if call.wire_cost_nusd is not None and (call.wire_cost_nusd > 0 or call.input_tokens is not None):
        return replace(
            call, cost_nusd=call.wire_cost_nusd, cost_source=f"wire:{call.wire_cost_source or call.dialect}"
        )
    return replace(call, unpriced_reason=priced.reason)
