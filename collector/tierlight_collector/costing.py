"""What a received call cost, and who says so: the order in which prices are believed.

1. What the caller or the provider stated on the span.
2. Nothing, for an answer from a local cache.
3. The price book (the user's own prices, then list prices at the moment of the call).
4. What the emitter computed itself, as `wire:<dialect>`.
5. Unpriced, with the reason; never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from tierlight.pricing import Cost, PriceBook, Usage

from .drafts import maker
from .records import CallRecord

STATED: Final = frozenset({"caller", "provider", "cache"})
PRICE_ESTIMATED: Final = (
    "price_estimated"  # a flag of calls priced by a table without history, or by one assumed query
)

_usage = maker(Usage)  # a plain frozen constructor takes a third of the time of pricing


class Costing:
    """Fills in the cost of calls from one price book; give it a call, get the same call with its cost."""

    def __init__(self, book: PriceBook) -> None:
        self._book = book

    def use(self, book: PriceBook) -> None:
        """Price by another book from the next call on."""
        self._book = book

    def __call__(self, call: CallRecord) -> CallRecord:
        """The call with its cost; itself where it was stated already."""
        costs = self.costs(call)
        return replace(call, **costs) if costs else call

    def fill(self, call: CallRecord) -> None:
        """The same in place, for a call that was just made and that nobody else has seen.

        A copy of a record with 75 fields for each call is what it saves on the way in.
        """
        set_field = object.__setattr__
        for name, value in self.costs(call).items():
            set_field(call, name, value)

    def costs(self, call: CallRecord) -> Mapping[str, Any]:
        """The cost columns that change, by name; empty where the call's own stay."""
        if call.cost_nusd is not None and call.cost_source in STATED:
            return {}
        priced = self._book.price(
            _usage(
                input_tokens=call.input_tokens,
                output_tokens=call.output_tokens,
                cached_input_tokens=call.cached_input_tokens,
                cache_write_input_tokens=call.cache_write_input_tokens,
                cache_write_1h_input_tokens=call.cache_write_1h_input_tokens,
                reasoning_tokens=call.reasoning_tokens,
                duration_ns=call.duration_ns,
            ),
            call.provider,
            call.request_model,
            call.start_ns,
            response_model=call.response_model,
            context=call.service_tier,
        )
        if isinstance(priced, Cost):
            columns: dict[str, Any] = {
                "cost_nusd": priced.nusd,
                "cost_input_nusd": priced.input_nusd,
                "cost_cached_nusd": priced.cached_nusd,
                "cost_cache_write_nusd": priced.cache_write_nusd,
                "cost_output_nusd": priced.output_nusd,
                "cost_source": priced.source,
                "price_version": priced.price_version,
                "unpriced_reason": "",
            }
            if call.cost_nusd is not None and call.cost_nusd != priced.nusd:
                columns["wire_cost_nusd"] = call.cost_nusd
                columns["wire_cost_source"] = call.cost_source
            if priced.estimated and PRICE_ESTIMATED not in call.flags:
                columns["flags"] = (*call.flags, PRICE_ESTIMATED)
            return columns
        if call.cost_nusd is not None:
            return {}
        # emitters write 0 when they know nothing, so a 0 without known usage is no price
        if call.wire_cost_nusd is not None and (call.wire_cost_nusd > 0 or call.input_tokens is not None):
            return {
                "cost_nusd": call.wire_cost_nusd,
                "cost_source": call.wire_cost_source or "wire",
                "unpriced_reason": "",
            }
        return {"unpriced_reason": priced.reason, "cost_source": ""}
