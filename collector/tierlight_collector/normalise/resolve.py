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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from ..records import CallRecord, NormalisedSpan
from .facts import CLOCK_SLACK_NS, RESPONSE_WINDOW_NS, SERVER_SIDE, SpanFacts, SpanKey
from .routes import ROUTE_ORDER, RouteSource, unrouted
from .scopes import is_native_scope
from .tiering import tier_of
from .twins import Twins, ancestors, end_ns, nested, same_response, same_time

__all__ = [
    "CLOCK_SLACK_NS",
    "RESPONSE_WINDOW_NS",
    "Settled",
    "SpanFacts",
    "SpanKey",
    "facts_of",
    "original",
    "resolve",
]


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
        span.call.scope if span.call is not None else record.scope,
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


def resolve(
    facts: Sequence[SpanFacts], order: tuple[RouteSource, ...] = ROUTE_ORDER
) -> dict[SpanKey, Settled]:
    """Settle every call among the facts: route, whether it counts, what it takes from its duplicates.

    The result is the same for every order of `facts`. See the module's text for which facts belong together.
    `order` says which statements about routes are believed before which.
    """
    spans = {fact.key: fact for fact in facts}
    calls = {key: fact.call for key, fact in sorted(spans.items()) if fact.call is not None}
    if not calls:
        return {}
    lineage = {key: tuple(ancestors(spans, key)) for key in calls}
    twins = Twins(calls)
    covered = nested(spans, calls, lineage, twins)
    if len(calls) > 1:
        same_response(spans, calls, twins)
    above = {key: frozenset(ancestor.key for ancestor in line) for key, line in lineage.items()}
    suspects = same_time(spans, calls, above, twins) if len(calls) > 1 else frozenset()

    settled: dict[SpanKey, Settled] = {}
    outer_keys = frozenset().union(*above.values())
    winners: dict[SpanKey, SpanKey] = {}
    groups = twins.groups()
    for members in groups:
        ranked = sorted(
            members, key=lambda key: _rank(spans[key], calls[key], key in outer_keys), reverse=True
        )
        route, source = _route(spans, lineage, ranked, order)
        for key in ranked:
            winners[key] = ranked[0]
        for key in ranked:
            settled[key] = Settled(
                route,
                source,
                superseded_by=None if key == ranked[0] else ranked[0],
                taken=_taken(calls[key], [calls[other] for other in ranked[1:]]) if key == ranked[0] else {},
                flags=("dup_suspect",) if key in suspects else (),
            )
    groups_by_winner = {winners[members[0]]: members for members in groups}
    # A call drawn around several real calls gives way to all of them; one stands for the rest as its successor.
    for outer, inner in sorted(covered.items()):
        successor = _final(winners[inner], covered, winners)
        if successor is None or successor == winners[outer]:
            continue
        for key in groups_by_winner[winners[outer]]:
            verdict = settled[key]
            settled[key] = replace(verdict, superseded_by=successor, taken={}, flags=())
    return {key: _ended(key, settled) for key in settled}


def _ended(key: SpanKey, settled: Mapping[SpanKey, Settled]) -> Settled:
    """The verdict with the call at the end of its line; in a circle (parents of each other) the least key counts."""
    line = [key]
    while (after := settled[line[-1]].superseded_by) is not None:
        if after in line:
            end = min(line[line.index(after) :])
            break
        line.append(after)
    else:
        end = line[-1]
    verdict = settled[key]
    if end == key:
        return verdict if verdict.superseded_by is None else replace(verdict, superseded_by=None)
    return verdict if verdict.superseded_by == end else replace(verdict, superseded_by=end)


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
        SERVER_SIDE not in call.flags,  # the caller waited longer, and knows whom it asked
        is_ours and call.cost_source in ("caller", "provider"),
        is_native_scope(fact.scope),
        is_ours and call.usage_source == "provider",
        not is_outer,
        bool(call.response_id),
        call.usage_source in ("provider", "billed"),
        end_ns(call),
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
    order: tuple[RouteSource, ...],
) -> tuple[str, str]:
    """The strongest statement about the route among the views of one call, the best ranked view first."""
    found = [_route_of(spans[key], lineage[key], order) for key in members]
    _, route, source = min(found, key=lambda each: each[0])
    if route:
        return route, source
    call = spans[members[0]].call
    return unrouted(call.service_name if call is not None else ""), "unrouted"


def _route_of(
    own: SpanFacts, line: Sequence[SpanFacts], order: tuple[RouteSource, ...]
) -> tuple[int, str, str]:
    for strength, source in enumerate(order):
        route = _said(source, own, line)
        if route:
            return strength, route, source
    return len(order), "", ""


def _said(source: RouteSource, own: SpanFacts, line: Sequence[SpanFacts]) -> str:
    """The route by one source: the span itself, the nearest above it that says something, the topmost with a name."""
    if source == "declared":
        return own.hints.declared
    if source == "dialect":
        return own.hints.dialect
    if source == "ancestor":
        return next((route for each in line if (route := each.hints.declared or each.hints.dialect)), "")
    if source == "agent":
        return next((each.hints.agent for each in (own, *line) if each.hints.agent), "")
    if source == "prompt":
        return next((each.hints.prompt for each in (own, *line) if each.hints.prompt), "")
    return next((each.hints.name for each in reversed(line) if each.hints.name), "")
