"""When something new first answered a route: a prompt version, a model, a version of the app, a price.

Nothing records a release, so it is read off the calls: one call per column of the chart is looked at, and where
it differs from all before, the first call of the new kind is asked for by the store's index. Rates of calls come
from rollups. Nothing here looks through calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from tierlight.pricing import PriceBook
from tierlight_collector.records import HOUR_NS, CallRecord, Filters, Rollup
from tierlight_collector.stores.protocol import Store

from .buckets import Buckets

# A model that answers fewer calls than this in its first column is a fallback or a stray, not a release.
LEAST_SHARE = 0.05
_DAY_NS = 24 * HOUR_NS


@dataclass(frozen=True, slots=True)
class Release:
    """Something new at a moment: "prompt", "model", "app" or "price", and its name."""

    ns: int
    what: str
    name: str


def releases(store: Store, columns: Buckets, where: Callable[..., Filters]) -> Iterator[Release]:
    """New prompt versions and app versions of one route; `where(**changes)` makes filters that mean it."""
    probes = []
    for start, end in zip(columns.edges, columns.edges[1:], strict=False):
        rows = store.calls(where(start_ns=start, end_ns=end), limit=1).rows
        if rows:
            probes.append((start, rows[0].call))
    yield from _prompts(store, probes, where)
    yield from _apps(store, probes, where)


def _prompts(
    store: Store, probes: list[tuple[int, CallRecord]], where: Callable[..., Filters]
) -> Iterator[Release]:
    seen: set[str] = {call.prompt_version for _, call in probes[:1]}
    for _, call in probes[1:]:
        version = call.prompt_version
        if version in seen or not version:
            continue
        seen.add(version)
        first = store.calls(
            where(prompt_version=(version,), start_ns=probes[0][0]), limit=1, descending=False
        ).rows
        if first and first[0].call.start_ns > probes[0][1].start_ns:
            yield Release(first[0].call.start_ns, "prompt", version)


def _apps(
    store: Store, probes: list[tuple[int, CallRecord]], where: Callable[..., Filters]
) -> Iterator[Release]:
    """Versions of the sending app by its own word (`service.version`), found between two columns by halving."""
    before: tuple[str, int] | None = None
    seen: set[str] = set()
    for _, call in probes:
        version = _version(store, call)
        if not version:
            continue
        if before is not None and version not in seen:
            low, high = before[1], call.start_ns
            for _ in range(12):  # a day to less than half a minute
                middle = (low + high) // 2
                rows = store.calls(where(start_ns=low, end_ns=middle), limit=1).rows
                if not rows or rows[0].call.start_ns <= low:
                    low = middle
                elif _version(store, rows[0].call) == version:
                    high = rows[0].call.start_ns
                else:
                    low = rows[0].call.start_ns
            yield Release(high, "app", version)
        seen.add(version)
        before = version, call.start_ns


def _version(store: Store, call: CallRecord) -> str:
    for span in store.trace(call.trace_id, limit=20):
        if span.span_id == call.span_id:
            return str(span.resource.attributes.get("service.version", ""))
    return ""


def models(
    series: Iterable[tuple[datetime, Rollup]],
    columns: Buckets,
    store: Store,
    where: Callable[..., Filters],
) -> Iterator[Release]:
    """Models that begin to answer a route, from its rollups whose key begins with the model."""
    found = list(series)
    names = dict.fromkeys(part.key[0] for _, part in found)
    by_model = {
        name: columns.place((when, part) for when, part in found if part.key[0] == name) for name in names
    }
    totals = [sum(part.calls for part in column if part) for column in zip(*by_model.values(), strict=True)]
    begun = next((i for i, calls in enumerate(totals) if calls), len(totals))
    for name, parts in by_model.items():
        first = next((i for i, part in enumerate(parts) if part is not None and part.calls), None)
        if first is None or first <= begun or not name:
            continue
        part = parts[first]
        assert part is not None
        if part.calls < LEAST_SHARE * totals[first]:
            continue
        rows = store.calls(
            where(model=(name,), start_ns=columns.starts[first]), limit=1, descending=False
        ).rows
        if rows:
            yield Release(rows[0].call.start_ns, "model", name)


def prices(book: PriceBook, used: Iterable[tuple[str, str]], columns: Buckets) -> Iterator[Release]:
    """Days from which on the list names another price for a model in use."""
    start, end = columns.starts[0], columns.end
    for provider, model in dict.fromkeys(used):

        def at(ns: int, provider: str = provider, model: str = model) -> tuple[object, ...]:
            row = book.quote(provider, model, ns)
            return () if row is None else (row.input_usd, row.cached_usd, row.cache_write_usd, row.output_usd)

        low, high = start // _DAY_NS, end // _DAY_NS
        if not at(start) or not at(high * _DAY_NS) or at(start) == at(high * _DAY_NS):
            continue
        old = at(start)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if at(middle * _DAY_NS) == old else (low, middle)
        yield Release(high * _DAY_NS, "price", model)
