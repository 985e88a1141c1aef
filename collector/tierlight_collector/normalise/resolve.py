"""Which spans count, and under which route: settled from everything known of the traces that a batch touches.

A span alone cannot say it. The same provider call may have been seen by two instrumentations, in one trace or
in two; its route may stand on a parent that arrives later. `resolve` answers from a set of facts and nothing
else, so the order of arrival cannot matter.

For the store, inside the writer's transaction
----------------------------------------------
1. *Nothing to ask.* A call needs no settling when it is the only span of its trace in the batch, the store holds
   no other span of that trace, and its service has sent calls from one scope only (duplicates always come from
   different scopes, or lie in the same trace). `CallRecord.route` and `.route_source` as `normalise` made them
   are final then, and the call counts. Keep the scopes per `service_name` in memory.
2. *Otherwise collect the facts:*
   a. every span, of any role, of the touched traces, stored and new;
   b. where the service has several scopes: for each call with a `response_id` the calls with the same
      `response_id` that start within `RESPONSE_WINDOW_NS` of it; and the calls of the same `service_name` whose
      time overlaps its own (+- `CLOCK_SLACK_NS`) where the one or the other has no `response_id`;
   c. the whole traces of what b brought, and so on until nothing new comes. Cap it (2,000 facts a trace are
      plenty): with fewer facts the answer is poorer, never wrong in a way that a later arrival cannot mend.
3. `resolve(facts)` gives a `Settled` for every call among the facts. Write what differs from the stored columns:
   `route`, `route_source`, `superseded_by`, the `taken` fields, `flags`; mark the hours of the old and the new
   series dirty.

Facts are what `normalise` said, not what an earlier settling made of it. `taken` only fills fields that were at
their default ("", None, 0 ...), the tier apart; so keep the *names* of the taken fields beside the row, and
rebuild the call of a `SpanFacts` as `original(call, names)`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, TypeAlias

from ..records import CallRecord, NormalisedSpan, Role, RouteHints
from .models import same_family
from .routes import unrouted
from .scopes import is_native_scope
from .tiering import tier_of

SpanKey: TypeAlias = tuple[bytes, bytes]  # (trace_id, span_id)

RESPONSE_WINDOW_NS: Final = 600 * 1_000_000_000
CLOCK_SLACK_NS: Final = 50 * 1_000_000
MAX_ANCESTORS: Final = 200

# The flag of a span that is a call only as long as no call is known below it.
WEAK: Final = "weak_role"


@dataclass(frozen=True, slots=True)
class SpanFacts:
    """What settling needs of one span. `call` is set where the role is "call", as `normalise` made it."""

    trace_id: bytes
    span_id: bytes
    parent_span_id: bytes
    role: Role
    scope: str
    hints: RouteHints
    call: CallRecord | None = None

    @property
    def key(self) -> SpanKey:
        return (self.trace_id, self.span_id)


@dataclass(frozen=True, slots=True)
class Settled:
    """The verdict on one call.

    `superseded_by` names the span that counts for the same provider call, perhaps in another trace; None when
    this one counts. `taken` maps fields of CallRecord to what the duplicates know and this span does not; it is
    empty for a superseded call. `flags` are added to the call's own.
    """

    route: str
    route_source: str
    superseded_by: SpanKey | None = None
    taken: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


def facts_of(span: NormalisedSpan) -> SpanFacts:
    """The facts of a span that was just normalised."""
    record = span.span
    return SpanFacts(
        record.trace_id,
        record.span_id,
        record.parent_span_id,
        span.role,
        record.scope,
        span.hints,
        span.call,
    )


def original(call: CallRecord, taken: Iterable[str]) -> CallRecord:
    """The call as `normalise` made it: the named fields, taken over from duplicates, are put back."""
    names = frozenset(taken)
    if not names:
        return call
    reset = {name: _DEFAULTS[name] for name in names}
    if "tier" in names:
        model = _DEFAULTS["response_model"] if "response_model" in names else call.response_model
        asked = _DEFAULTS["request_model"] if "request_model" in names else call.request_model
        reset["tier"] = tier_of(call.provider, model or asked)
    return replace(call, **reset)


def resolve(facts: Sequence[SpanFacts]) -> dict[SpanKey, Settled]:
    """Settle every call among the facts: route, whether it counts, what it takes from its duplicates.

    The result is the same for every order of `facts`. See the module's text for which facts belong together.
    """
    spans = {fact.key: fact for fact in facts}
    calls = {key: fact.call for key, fact in sorted(spans.items()) if fact.call is not None}
    if not calls:
        return {}
    lineage = {key: tuple(_ancestors(spans, key)) for key in calls}
    twins = _Twins(calls)
    covered = _nested(spans, calls, lineage, twins)
    if len(calls) > 1:
        _same_response(spans, calls, twins)
    suspects = _same_time(spans, calls, lineage, twins) if len(calls) > 1 else frozenset()

    settled: dict[SpanKey, Settled] = {}
    outer_keys = {ancestor.key for line in lineage.values() for ancestor in line}
    winners: dict[SpanKey, SpanKey] = {}
    for members in twins.groups():
        ranked = sorted(
            members, key=lambda key: _rank(spans[key], calls[key], key in outer_keys), reverse=True
        )
        for key in ranked:
            winners[key] = ranked[0]
        for key in ranked:
            route, source = _route(spans, lineage, [key, *(other for other in ranked if other != key)])
            settled[key] = Settled(
                route,
                source,
                superseded_by=None if key == ranked[0] else ranked[0],
                taken=_taken(calls[key], [calls[other] for other in ranked[1:]]) if key == ranked[0] else {},
                flags=("dup_suspect",) if key in suspects else (),
            )
    # A call drawn around several real calls gives way to all of them; one stands for the rest as its successor.
    for outer, inner in sorted(covered.items()):
        successor = _final(winners[inner], covered, winners)
        if successor is None or successor == winners[outer]:
            continue
        for key in twins.group(outer):
            verdict = settled[key]
            settled[key] = replace(verdict, superseded_by=successor, taken={}, flags=())
    return settled


class _Twins:
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

    def group(self, key: SpanKey) -> list[SpanKey]:
        root = self.root(key)
        return [other for other in self._parent if self.root(other) == root]

    def groups(self) -> list[list[SpanKey]]:
        by_root: dict[SpanKey, list[SpanKey]] = defaultdict(list)
        for key in self._parent:
            by_root[self.root(key)].append(key)
        return list(by_root.values())


def _ancestors(spans: Mapping[SpanKey, SpanFacts], key: SpanKey) -> Iterator[SpanFacts]:
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


def _nested(
    spans: Mapping[SpanKey, SpanFacts],
    calls: Mapping[SpanKey, CallRecord],
    lineage: Mapping[SpanKey, tuple[SpanFacts, ...]],
    twins: _Twins,
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


def _end_ns(call: CallRecord) -> int:
    return call.start_ns + (call.duration_ns or 0)


def _overlap(a: CallRecord, b: CallRecord) -> bool:
    return a.start_ns <= _end_ns(b) + CLOCK_SLACK_NS and b.start_ns <= _end_ns(a) + CLOCK_SLACK_NS


def _same_response(
    spans: Mapping[SpanKey, SpanFacts], calls: Mapping[SpanKey, CallRecord], twins: _Twins
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
        pairs = [
            (a, b)
            for index, a in enumerate(keys)
            for b in keys[index + 1 :]
            if spans[a].scope != spans[b].scope
            and _same_sender(calls[a], calls[b])
            and abs(calls[a].start_ns - calls[b].start_ns) <= RESPONSE_WINDOW_NS
        ]
        scopes = [spans[key].scope for key in keys]
        if len(set(scopes)) == len(scopes):
            for a, b in pairs:
                twins.join(a, b)
            continue
        overlapping = [(a, b) for a, b in pairs if _overlap(calls[a], calls[b])]
        partners: dict[tuple[SpanKey, str], int] = defaultdict(int)
        for a, b in overlapping:
            partners[a, spans[b].scope] += 1
            partners[b, spans[a].scope] += 1
        for a, b in overlapping:
            if partners[a, spans[b].scope] == 1 and partners[b, spans[a].scope] == 1:
                twins.join(a, b)


def _same_time(
    spans: Mapping[SpanKey, SpanFacts],
    calls: Mapping[SpanKey, CallRecord],
    lineage: Mapping[SpanKey, tuple[SpanFacts, ...]],
    twins: _Twins,
) -> frozenset[SpanKey]:
    """Last resort, for calls without an id: join a pair that fits in time when each is the other's best fit.

    Gives the calls that fit several equally and are therefore left apart.
    """
    fits: dict[SpanKey, list[tuple[int, SpanKey]]] = defaultdict(list)
    keys = sorted(calls, key=lambda key: (calls[key].start_ns, key))
    for index, a in enumerate(keys):
        call = calls[a]
        limit = _end_ns(call) + CLOCK_SLACK_NS
        for b in keys[index + 1 :]:
            other = calls[b]
            if other.start_ns > limit:
                break
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
                and not _related(spans, lineage, a, b)
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
    start_gap, end_gap = b.start_ns - a.start_ns, _end_ns(a) - _end_ns(b)
    a_holds_b = start_gap >= -CLOCK_SLACK_NS and end_gap >= -CLOCK_SLACK_NS
    b_holds_a = start_gap <= CLOCK_SLACK_NS and end_gap <= CLOCK_SLACK_NS
    return abs(start_gap) + abs(end_gap) if a_holds_b or b_holds_a else None


def _related(
    spans: Mapping[SpanKey, SpanFacts],
    lineage: Mapping[SpanKey, tuple[SpanFacts, ...]],
    a: SpanKey,
    b: SpanKey,
) -> bool:
    """Whether one is the other's ancestor: such pairs were judged as nested already."""
    return spans[a] in lineage[b] or spans[b] in lineage[a]


def _final(
    key: SpanKey, covered: Mapping[SpanKey, SpanKey], winners: Mapping[SpanKey, SpanKey]
) -> SpanKey | None:
    """The call that counts at the end of a line of covered calls; None for a circle."""
    seen: set[SpanKey] = set()
    while key in covered:
        if key in seen:
            return None
        seen.add(key)
        key = winners[covered[key]]
    return key


def _rank(fact: SpanFacts, call: CallRecord, is_outer: bool) -> tuple[object, ...]:
    """Higher counts before lower; the key itself breaks the last tie."""
    is_ours = call.dialect == "tierlight"
    return (
        is_ours and call.cost_source in ("caller", "provider"),
        is_native_scope(fact.scope),
        is_ours and call.usage_source == "provider",
        not is_outer,
        bool(call.response_id),
        call.usage_source in ("provider", "billed"),
        _end_ns(call),
        fact.key,
    )


# ---- what the winner takes ------------------------------------------------------------------------------

_USAGE_FIELDS: Final = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_input_tokens",
    "cache_write_1h_input_tokens",
    "reasoning_tokens",
    "usage_source",
    "cache_rule",
    "cost_nusd",
    "cost_input_nusd",
    "cost_cached_nusd",
    "cost_cache_write_nusd",
    "cost_output_nusd",
    "cost_source",
    "price_version",
    "unpriced_reason",
)
_FILLED_FIELDS: Final = (
    "finish_reason",
    "ttft_ns",
    "is_streaming",
    "http_status",
    "response_id",
    "request_model",
    "response_model",
    "session_id",
    "user_id",
    "prompt_name",
    "prompt_version",
    "service_tier",
    "env",
    "wire_cost_nusd",
    "wire_cost_source",
)
# What only our own SDK says; it survives whichever span wins.
_OWN_FIELDS: Final = (
    "tier",
    "call_id",
    "attempt_index",
    "attempt_reason",
    "attempt_final",
    "purpose",
    "experiment",
    "arm",
    "act_prob",
    "keep_prob",
    "strategy",
    "policy_version",
    "segment",
)
_DEFAULTS: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("request_model", "response_model", "tier"), ""),
    "ttft_ns": None,
    **{spec.name: spec.default for spec in fields(CallRecord) if spec.name in (*_USAGE_FIELDS, *_OWN_FIELDS)},
    **{
        spec.name: spec.default
        for spec in fields(CallRecord)
        if spec.name in _FILLED_FIELDS and spec.name not in ("request_model", "response_model", "ttft_ns")
    },
    "tier": "",
}


def _taken(winner: CallRecord, losers: Sequence[CallRecord]) -> dict[str, Any]:
    if not losers:
        return {}
    taken: dict[str, Any] = {}
    for loser in losers:
        for name in _FILLED_FIELDS:
            value = getattr(loser, name)
            if name not in taken and value != _DEFAULTS[name] and getattr(winner, name) == _DEFAULTS[name]:
                taken[name] = value
        if loser.dialect == "tierlight" and winner.dialect != "tierlight":
            for name in _OWN_FIELDS:
                value = getattr(loser, name)
                if name not in taken and value != _DEFAULTS[name] and value != getattr(winner, name):
                    taken[name] = value
        if (
            winner.usage_source == "absent"
            and not winner.error_type
            and winner.outcome != "cancelled"
            and "usage_source" not in taken
            and loser.usage_source != "absent"
        ):
            for name in _USAGE_FIELDS:
                value = getattr(loser, name)
                if value != getattr(winner, name):
                    taken[name] = value
    return taken


# ---- routes ---------------------------------------------------------------------------------------------


def _route(
    spans: Mapping[SpanKey, SpanFacts],
    lineage: Mapping[SpanKey, tuple[SpanFacts, ...]],
    members: Sequence[SpanKey],
) -> tuple[str, str]:
    """The strongest statement about the route among one call and its duplicates, the call's own first."""
    found = [_route_of(spans[key], lineage[key]) for key in members]
    _, route, source = min(found, key=lambda each: each[0])
    if route:
        return route, source
    call = spans[members[0]].call
    return unrouted(call.service_name if call is not None else ""), "unrouted"


def _route_of(own: SpanFacts, line: Sequence[SpanFacts]) -> tuple[int, str, str]:
    hints = own.hints
    if hints.declared:
        return 1, hints.declared, "declared"
    if hints.dialect:
        return 2, hints.dialect, "dialect"
    for ancestor in line:
        said = ancestor.hints.declared or ancestor.hints.dialect
        if said:
            return 3, said, "ancestor"
    for fact in (own, *line):
        if fact.hints.agent:
            return 4, fact.hints.agent, "agent"
    for fact in (own, *line):
        if fact.hints.prompt:
            return 5, fact.hints.prompt, "prompt"
    for fact in reversed(line):
        if fact.hints.name:
            return 6, fact.hints.name, "root"
    return 9, "", ""
