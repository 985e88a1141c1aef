"""Which calls are views of one provider call: nested, by response id, or by a unique fit in time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..records import CallRecord
from .facts import (
    CLOCK_SLACK_NS,
    MAX_ANCESTORS,
    MAX_CROWD,
    RESPONSE_WINDOW_NS,
    STREAM_REPORT,
    WEAK,
    SpanFacts,
    SpanKey,
)
from .models import same_family


class Twins:
    """Disjoint sets of calls that are one provider call (union-find)."""

    def __init__(self, keys: Iterable[SpanKey]) -> None:
        self._parent = {key: key for key in keys}

    def root(self, key: SpanKey) -> SpanKey:
        while self._parent[key] != key:
            self._parent[key] = self._parent[self._parent[key]]
            key = self._parent[key]
        return key

    def join(self, a: SpanKey, b: SpanKey) -> None:
        low, high = sorted((self.root(a), self.root(b)))
        self._parent[high] = low

    def groups(self) -> list[list[SpanKey]]:
        by_root: dict[SpanKey, list[SpanKey]] = defaultdict(list)
        for key in self._parent:
            by_root[self.root(key)].append(key)
        return list(by_root.values())


def ancestors(spans: Mapping[SpanKey, SpanFacts], key: SpanKey) -> Iterator[SpanFacts]:
    """The known ancestors, nearest first; parents that never came or point in a circle end the line."""
    trace_id, parent = key[0], spans[key].parent_span_id
    seen = {key[1]}
    while parent and parent not in seen and len(seen) <= MAX_ANCESTORS:
        found = spans.get((trace_id, parent))
        if found is None:
            return
        seen.add(parent)
        yield found
        parent = found.parent_span_id


def nested(
    spans: Mapping[SpanKey, SpanFacts],
    calls: Mapping[SpanKey, CallRecord],
    lineage: Mapping[SpanKey, tuple[SpanFacts, ...]],
    twins: Twins,
) -> dict[SpanKey, SpanKey]:
    """Join each call with the one call inside it that is the same; gives the outer calls drawn around several."""
    inside: dict[SpanKey, list[SpanKey]] = defaultdict(list)
    covered: dict[SpanKey, SpanKey] = {}
    for key, line in lineage.items():
        for ancestor in line:
            if ancestor.call is not None and WEAK in ancestor.call.flags:
                covered[ancestor.key] = min(key, covered.get(ancestor.key, key))
        for ancestor in line:
            if ancestor.role in ("tool", "aggregate"):
                break  # an agent called as a tool is another call
            if ancestor.call is not None:
                inside[ancestor.key].append(key)
                break
    for outer, inner_keys in inside.items():
        if outer in covered:
            continue
        same = [key for key in inner_keys if _explains(calls[key], calls[outer])]
        if not same:
            alike = [key for key in inner_keys if _alike(calls[key], calls[outer])]
            same = alike if _sums_to([calls[key] for key in alike], calls[outer]) else []
        if len(same) == 1:
            twins.join(outer, same[0])
        elif same:
            by_id = [key for key in same if _same_id(calls[key], calls[outer])]
            covered[outer] = min(by_id or same, key=lambda key: (-calls[key].start_ns, key))
    return covered


def _explains(inner: CallRecord, outer: CallRecord) -> bool:
    """Whether the inner call is what the outer one reports; a failed call never explains a successful one."""
    return _same_id(inner, outer) or (_alike(inner, outer) and _usage_agrees(inner, outer))


def _alike(inner: CallRecord, outer: CallRecord) -> bool:
    return (
        bool(inner.error_type) == bool(outer.error_type)
        and inner.operation == outer.operation
        and _same_model(inner, outer)
    )


def _sums_to(inner: Sequence[CallRecord], outer: CallRecord) -> bool:
    """Whether several inner calls together report the outer one's tokens."""
    return len(inner) > 1 and (
        (
            outer.input_tokens is not None
            and sum(each.input_tokens or 0 for each in inner) == outer.input_tokens
        )
        or (
            outer.output_tokens is not None
            and sum(each.output_tokens or 0 for each in inner) == outer.output_tokens
        )
    )


def _same_id(a: CallRecord, b: CallRecord) -> bool:
    return bool(a.response_id) and a.response_id == b.response_id


def _same_model(a: CallRecord, b: CallRecord) -> bool:
    """Same family between any two of the models named; a call that names none agrees with all."""
    ours = [model for model in (a.response_model, a.request_model) if model]
    theirs = [model for model in (b.response_model, b.request_model) if model]
    if not ours or not theirs:
        return True
    return any(same_family(one, other) for one in ours for other in theirs)


def _usage_agrees(a: CallRecord, b: CallRecord) -> bool:
    """Equal, or unknown, or off in the known ways: estimated, cut stream (1 token), cached part left out."""
    if "estimated" in (a.usage_source, b.usage_source):
        return True
    pairs = ((a.input_tokens, b.input_tokens), (a.output_tokens, b.output_tokens))
    known = [(x, y) for x, y in pairs if x is not None and y is not None]
    return not known or any(x == y for x, y in known)


def _same_sender(a: CallRecord, b: CallRecord) -> bool:
    if a.service_instance and b.service_instance:
        return a.service_instance == b.service_instance
    return a.service_name == b.service_name


def end_ns(call: CallRecord) -> int:
    return call.start_ns + (call.duration_ns or 0)


def _last_ns(call: CallRecord) -> int:
    """The end for a comparison in time; of a stream that is reported apart, when the call's own span ends: its start."""
    return call.start_ns if STREAM_REPORT in call.flags else end_ns(call)


def _overlapping(
    calls: Mapping[SpanKey, CallRecord], keys: Iterable[SpanKey]
) -> Iterator[tuple[SpanKey, SpanKey]]:
    """The pairs whose times overlap (with slack), by start; in a crowd only the nearest."""
    ordered = sorted(keys, key=lambda key: (calls[key].start_ns, key))
    for index, a in enumerate(ordered):
        limit = end_ns(calls[a]) + CLOCK_SLACK_NS
        for b in ordered[index + 1 : index + 1 + MAX_CROWD]:
            if calls[b].start_ns > limit:
                break
            yield a, b


def same_response(
    spans: Mapping[SpanKey, SpanFacts], calls: Mapping[SpanKey, CallRecord], twins: Twins
) -> None:
    """Join calls of different scopes that carry one response id, in whatever traces.

    Servers exist that give every answer the same id. Then a scope shows the id more than once, and only pairs
    that overlap in time, and with nobody else, are taken for one call.
    """
    by_id: dict[str, list[SpanKey]] = defaultdict(list)
    for key, call in calls.items():
        if call.response_id:
            by_id[call.response_id].append(key)
    for keys in by_id.values():
        if len(keys) < 2:
            continue
        scopes = {spans[key].scope for key in keys}
        if len(scopes) == len(keys) <= MAX_CROWD:
            for index, a in enumerate(keys):
                for b in keys[index + 1 :]:
                    if (
                        _same_sender(calls[a], calls[b])
                        and abs(calls[a].start_ns - calls[b].start_ns) <= RESPONSE_WINDOW_NS
                    ):
                        twins.join(a, b)
            continue
        overlapping = [
            (a, b)
            for a, b in _overlapping(calls, keys)
            if spans[a].scope != spans[b].scope and _same_sender(calls[a], calls[b])
        ]
        partners: dict[tuple[SpanKey, str], int] = defaultdict(int)
        for a, b in overlapping:
            partners[a, spans[b].scope] += 1
            partners[b, spans[a].scope] += 1
        for a, b in overlapping:
            if partners[a, spans[b].scope] == 1 and partners[b, spans[a].scope] == 1:
                twins.join(a, b)


def same_time(
    spans: Mapping[SpanKey, SpanFacts],
    calls: Mapping[SpanKey, CallRecord],
    above: Mapping[SpanKey, frozenset[SpanKey]],
    twins: Twins,
) -> frozenset[SpanKey]:
    """Last resort, for calls without an id: join a pair that fits in time when each is the other's best fit.

    Gives the calls that fit several equally and are therefore left apart.
    """
    fits: dict[SpanKey, list[tuple[int, SpanKey]]] = defaultdict(list)
    for a, b in _overlapping(calls, calls):
        call, other = calls[a], calls[b]
        if (
            not (call.response_id and other.response_id)
            and spans[a].scope != spans[b].scope
            and call.provider == other.provider
            and call.operation == other.operation
            and bool(call.error_type) == bool(other.error_type)
            and _same_sender(call, other)
            and twins.root(a) != twins.root(b)
            and _same_model(call, other)
            and _usage_agrees(call, other)
            and a not in above[b]
            and b not in above[a]  # nested pairs were judged already
        ):
            apart = _containment(call, other)
            if apart is not None:
                fits[a].append((apart, b))
                fits[b].append((apart, a))
    best: dict[SpanKey, SpanKey] = {}
    for key, options in fits.items():
        options.sort()
        if len(options) == 1 or options[0][0] < options[1][0]:
            best[key] = options[0][1]
    for one, partner in sorted(best.items()):
        if best.get(partner) == one:
            twins.join(one, partner)
    return frozenset(key for key in fits if key not in best)


def _containment(a: CallRecord, b: CallRecord) -> int | None:
    """How far the ends of the two lie apart when one contains the other (with slack), else None."""
    start_gap, end_gap = b.start_ns - a.start_ns, _last_ns(a) - _last_ns(b)
    a_holds_b = start_gap >= -CLOCK_SLACK_NS and end_gap >= -CLOCK_SLACK_NS
    b_holds_a = start_gap <= CLOCK_SLACK_NS and end_gap <= CLOCK_SLACK_NS
    return abs(start_gap) + abs(end_gap) if a_holds_b or b_holds_a else None
