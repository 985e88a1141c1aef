"""When something new first answered a route: a prompt version, a model, a version of the app, a price.

Nothing records a release, so it is read off the calls: one call per column of the chart is looked at, and where
it differs from all before, the first call of the new kind is asked for by the store's index. Rates of calls come
from rollups. Nothing here looks through calls, and what columns of the past told is kept: it does not change.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from tierlight.pricing import PriceBook
from tierlight_collector.records import HOUR_NS, CallRecord, Filters, Rollup
from tierlight_collector.stores.protocol import Store

from .buckets import Buckets

# A model that answers fewer calls than this in its first column is a fallback or a stray, not a release.
LEAST_SHARE = 0.05
MOST_PROBES = 10_000
PROBE_LASTS_S = 900.0  # calls of the past may still arrive
_DAY_NS = 24 * HOUR_NS
Where = Callable[..., Filters]


@dataclass(frozen=True, slots=True)
class Release:
    """Something new at a moment: "prompt", "model", "app" or "price", and its name."""

    ns: int
    what: str
    name: str


@dataclass(frozen=True, slots=True)
class Probe:
    """What one call of a stretch of time says of the versions behind it."""

    ns: int
    prompt: str
    app: str


class Probes:
    """One call's versions per stretch of time; the past is remembered. Safe to use from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: OrderedDict[Filters, tuple[float, Probe]] = OrderedDict()

    def newest(self, where: Where, start: int, end: int, *, is_past: bool) -> Probe | None:
        """The versions of the newest call in [start, end)."""
        key = where(start_ns=start, end_ns=end)
        kept = self._kept.get(key)
        if kept is not None and is_past and time.monotonic() < kept[0]:
            return kept[1]
        rows = self._store.calls(key, limit=1).rows
        if not rows:
            return None
        found = Probe(rows[0].call.start_ns, rows[0].call.prompt_version, self._app(rows[0].call))
        self._kept[key] = time.monotonic() + PROBE_LASTS_S, found
        while len(self._kept) > MOST_PROBES:
            self._kept.popitem(last=False)
        return found

    def _app(self, call: CallRecord) -> str:
        """The version of the sending app by its own word."""
        for span in self._store.trace(call.trace_id, limit=20):
            if span.span_id == call.span_id:
                return str(span.resource.attributes.get("service.version", ""))
        return ""


def releases(store: Store, probes: Probes, columns: Buckets, where: Where) -> Iterator[Release]:
    """New prompt versions and app versions of one route; `where(**changes)` makes filters that mean it."""
    edges = list(zip(columns.edges, columns.edges[1:], strict=False))
    found = [
        probe
        for i, (start, end) in enumerate(edges)
        if (probe := probes.newest(where, start, end, is_past=i < len(edges) - 1)) is not None
    ]
    yield from _prompts(store, found, where)
    yield from _apps(probes, found, where)


def _prompts(store: Store, found: list[Probe], where: Where) -> Iterator[Release]:
    seen = {probe.prompt for probe in found[:1]}
    for probe in found[1:]:
        if probe.prompt in seen or not probe.prompt:
            continue
        seen.add(probe.prompt)
        own = where(prompt_version=(probe.prompt,), start_ns=found[0].ns)
        first = store.calls(own, limit=1, descending=False).rows
        if first and first[0].call.start_ns > found[0].ns:
            yield Release(first[0].call.start_ns, "prompt", probe.prompt)


def _apps(probes: Probes, found: list[Probe], where: Where) -> Iterator[Release]:
    """Versions of the sending app, found between two columns by halving."""
    before: Probe | None = None
    seen: set[str] = set()
    for probe in found:
        if not probe.app:
            continue
        if before is not None and probe.app not in seen:
            low, high = before.ns, probe.ns
            for _ in range(12):  # a day to less than half a minute
                middle = (low + high) // 2
                between = probes.newest(where, low, middle, is_past=True)
                if between is None or between.ns <= low:
                    low = middle
                elif between.app == probe.app:
                    high = between.ns
                else:
                    low = between.ns
            yield Release(high, "app", probe.app)
        seen.add(probe.app)
        before = probe


def models(
    series: Iterable[tuple[datetime, Rollup]], columns: Buckets, store: Store, where: Where
) -> Iterator[Release]:
    """Models that begin to answer a route, from its rollups whose key begins with the model."""
    starts = {start // 10**9: i for i, start in enumerate(columns.starts)}
    calls: dict[str, list[int]] = {}
    for when, part in series:
        i = starts.get(int(when.timestamp()))
        if i is not None:
            calls.setdefault(part.key[0], [0] * len(starts))[i] += part.calls
    totals = [sum(column) for column in zip(*calls.values(), strict=True)]
    begun = next((i for i, n in enumerate(totals) if n), len(totals))
    for name, own in calls.items():
        first = next((i for i, n in enumerate(own) if n), None)
        if first is None or first <= begun or not name or own[first] < LEAST_SHARE * totals[first]:
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
        old, new = at(start), at(high * _DAY_NS)
        if not old or not new or old == new:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if at(middle * _DAY_NS) == old else (low, middle)
        yield Release(high * _DAY_NS, "price", model)
