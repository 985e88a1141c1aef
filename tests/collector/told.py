"""A few traces as applications send them: routes on parents, duplicates, unknown prices, clocks that run ahead."""

from __future__ import annotations

from typing import Any

from tierlight.pricing import PriceBook
from tierlight_collector.costing import Costing
from tierlight_collector.normalise import normalise
from tierlight_collector.records import HOUR_NS, Batch, Resource, SpanRecord
from tierlight_collector.stores.protocol import Store

NOW_NS = 1_795_000_000_000_000_000
COSTING = Costing(PriceBook.default())
RESOURCE = Resource(
    {"service.name": "shop", "service.instance.id": "shop-1", "deployment.environment.name": "prod"},
    "shop",
    "shop-1",
    "prod",
)


def span(
    trace: int, number: int, *, parent: int = 0, scope: str = "app", name: str = "work", **more: Any
) -> SpanRecord:
    start_ns = NOW_NS - HOUR_NS + trace * 1_000_000_000 + number
    return SpanRecord(
        trace_id=trace.to_bytes(16),
        span_id=(trace * 100 + number).to_bytes(8),
        parent_span_id=(trace * 100 + parent).to_bytes(8) if parent else b"",
        name=name,
        kind=more.pop("kind", 1),
        start_ns=more.pop("start_ns", start_ns),
        end_ns=more.pop("end_ns", start_ns + 500_000_000),
        status_code=0,
        status_message="",
        scope=scope,
        scope_version="",
        attributes=more.pop("attributes", {}),
        events=(),
        resource=RESOURCE,
    )


def chat(response_id: str, *, model: str = "gpt-4o-mini", tokens: int = 1_000, **more: Any) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": model,
        "gen_ai.response.id": response_id,
        "gen_ai.usage.input_tokens": tokens,
        "gen_ai.usage.output_tokens": 100,
        **more,
    }


SPANS = [
    # One route on a parent, a call below it, seen by two instrumentations.
    span(1, 1, name="workflow", attributes={"tierlight.span.role": "route", "tierlight.route": "support"}),
    span(1, 2, parent=1, scope="opentelemetry.instrumentation.openai", attributes=chat("r-1")),
    span(1, 3, parent=2, scope="other.instrumentation", attributes=chat("r-1")),
    # The same in two traces.
    span(2, 1, scope="opentelemetry.instrumentation.openai", attributes=chat("r-2", tokens=10)),
    span(3, 1, scope="other.instrumentation", attributes=chat("r-2", tokens=10)),
    # Alone, unpriced; stated cost; a clock that runs ahead; a span that is no call.
    span(4, 1, attributes=chat("r-4", model="house-model")),
    span(5, 1, attributes={**chat("r-5"), "tierlight.schema": "1", "tierlight.route": "billing",
        "tierlight.cost.amount": 0.25, "tierlight.cost.source": "caller"}),
    span(6, 1, start_ns=NOW_NS + 9 * HOUR_NS, end_ns=NOW_NS + 9 * HOUR_NS + 7_000_000, attributes=chat("r-6")),
    span(7, 1, name="GET /x", kind=2, attributes={"http.request.method": "GET", "http.route": "/x"}),
]  # fmt: skip


def append(store: Store, spans: list[SpanRecord]) -> None:
    read = [normalise(each, NOW_NS) for each in spans]
    for each in read:
        if each.call is not None:
            COSTING.fill(each.call)
    store.append(Batch(spans=tuple(read), arrived_ns=NOW_NS))
