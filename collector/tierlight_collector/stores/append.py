"""The transaction that stores a group of requests: what is new, which calls count, under which route.

Per call it costs one look-up of its trace, one row and its share of two compressed blocks. Only calls that have
relatives are settled by `normalise.resolve`, together with what the store holds of those relatives.
"""

# ruff: noqa: S608 - only names of our own tables and columns are put into statements; values are bound

# Long because what one transaction stores, settles and marks is read from top to bottom.
from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from ..normalise import PLAIN_RULES, RouteRules
from ..normalise.resolve import (
    CLOCK_SLACK_NS,
    RESPONSE_WINDOW_NS,
    Settled,
    SpanFacts,
    SpanKey,
    facts_of,
    original,
    resolve,
)
from ..records import HOUR_NS, Appended, Batch, CallRecord, NormalisedSpan
from . import blocks, callrows, tables
from .conflicts import Key, conflicting
from .dirty import DirtyHours
from .failures import Failures
from .horizons import Horizons
from .intern import Dictionary, Interner
from .runs import RUN_BITS, Runs
from .scoring import Scorer

MAX_RELATED: Final = 2_000  # spans of a trace that are settled together
MAX_LOOK_ALIKES: Final = 20  # among more calls at one moment none is the only match
LONGEST_CALL_NS: Final = 120 * 1_000_000_000  # how far back a call may have begun that is still running
_ASKED: Final = (16, 256)  # places of one statement: what is left is padded, so that SQLite parses it once

_T = TypeVar("_T")

_INSERT_CALL: Final = tables.insert(tables.Call)
_INSERT_SPAN: Final = tables.insert(tables.Span)
_INSERT_SPAN_BLOCK: Final = tables.insert(tables.SpanBlock)
_INSERT_CONTENT_BLOCK: Final = tables.insert(tables.ContentBlock)
_KEY: Final = "trace_id, span_id, project_id"
_HAS_RESPONSE: Final = tables.has_id("response_id", "?1", runs=tables.runs_between("?3", "?4"))
_HOLDS_ASKED: Final = (
    f"(seq >> {RUN_BITS}) = asked.run AND substr(trace_id, -8) = substr(asked.id, -8)"
    " AND +trace_id = asked.id"
)


@dataclass(slots=True)
class _New:
    """A span that is not stored yet."""

    seq: int
    project_id: int
    span: NormalisedSpan
    call: CallRecord | None
    superseded_by: int | None = None
    taken: str | None = None


@dataclass(slots=True)
class _Stored:
    """A span that is stored and related to a new one."""

    seq: int
    project_id: int
    facts: SpanFacts
    call: CallRecord | None  # as it counts now, while `facts.call` is as it was read
    superseded_by: int | None = None
    taken: str | None = None


class Appender:
    """Stores groups inside the writer's open transaction. After a rollback call `forget`."""

    def __init__(
        self, connection: sqlite3.Connection, rules: RouteRules = PLAIN_RULES, runs: Runs | None = None
    ) -> None:
        self._connection = connection
        self._route_order = rules.order
        self._interner = Interner(connection)
        self._dictionary = Dictionary()
        self.dirty = DirtyHours(connection)
        self.runs = runs or Runs(connection)
        self.scorer = Scorer(connection, self._interner, self.dirty, self.runs)
        self._failures = Failures(connection)
        self.horizons = Horizons()
        self.forget()

    def forget(self) -> None:
        """Read anew what is kept in memory of the database."""
        self._interner.forget()
        self._dictionary = Dictionary()
        self.dirty.forget()
        self.scorer.forget()
        self._failures.forget()
        self.runs.forget()
        counters = dict(self._connection.execute("SELECT name, n FROM counters"))
        self._next_seq: int = counters.get("next_seq", 1)
        self._scopes: dict[str, set[str]] = defaultdict(set)
        for service_name, scope in self._connection.execute(
            "SELECT DISTINCT service_name, scope FROM call_origins"
        ):
            self._scopes[service_name].add(scope)

    def store(self, group: Sequence[Batch], now_ns: int) -> list[Appended]:
        """Insert what is new; gives what became of each request. Raises what SQLite raises: then roll back."""
        self.dirty.now_ns = now_ns
        told = self._note_failures(group)
        new, results, expired, again = self._new_spans(group)
        conflicts = self._conflicts(again, new) if again else 0
        if new:
            self._settle(new)
            self._insert(new)
        if any(told):
            self._mend(group)
        scored = self.scorer.store(
            group,
            {
                (item.span.span.trace_id, item.span.span.span_id): (item.seq, item.superseded_by, item.call)
                for item in new
                if item.span.scores
            },
        )
        appended = [
            Appended(accepted + failures + scores, duplicates)
            for (accepted, duplicates), failures, scores in zip(results, told, scored, strict=True)
        ]
        self._forward(group, [each.accepted for each in appended], now_ns)
        self._count(
            next_seq=self._next_seq,
            spans=len(new),
            calls=sum(item.call is not None for item in new),
            duplicates=sum(each.duplicates for each in appended),
            scores=sum(scored),
            failures_told=sum(told),
            expired=expired,
            conflicts=conflicts,
        )
        return appended

    # ---- what is new ------------------------------------------------------------------------------------

    def _new_spans(
        self, group: Sequence[Batch]
    ) -> tuple[list[_New], list[tuple[int, int]], int, list[tuple[Key, int, NormalisedSpan]]]:
        """The new spans, what each request brought, how many are too old, and those whose ids are taken."""
        traces = {each.span.trace_id for batch in group for each in batch.spans}
        known = self._stored_keys(traces)
        new: list[_New] = []
        results: list[tuple[int, int]] = []
        again: list[tuple[Key, int, NormalisedSpan]] = []
        seq, expired, oldest_ns = self._next_seq, 0, self.horizons.calls_ns
        for batch in group:
            project_id = self._interner.project(batch.project)
            before, expired_before = len(new), expired
            for each in batch.spans:
                if each.span.start_ns < oldest_ns:
                    expired += 1  # a spool that is sent again must not bring back what was deleted
                    continue
                key = (each.span.trace_id, each.span.span_id, project_id)
                if key in known:
                    # A start that was wrong became the arrival, which is another each time.
                    if each.span.start_ns != batch.arrived_ns:
                        again.append((key, known[key], each))
                    continue
                known[key] = seq
                call = each.call and self._failures.mended(project_id, each.call)
                new.append(_New(seq, project_id, each, call))
                seq += 1
            accepted = len(new) - before
            results.append((accepted, len(batch.spans) - accepted - (expired - expired_before)))
        self._next_seq = seq
        return new, results, expired, again

    def _conflicts(self, again: Sequence[tuple[Key, int, NormalisedSpan]], new: Sequence[_New]) -> int:
        spans = [(item.project_id, item.span.span) for item in new]
        fresh = {(span.trace_id, span.span_id, project_id): span for project_id, span in spans}
        return conflicting(self._connection, again, fresh)

    def _stored_keys(self, traces: Iterable[bytes]) -> dict[Key, int]:
        """Every stored span of these traces, with its arrival number."""
        found: dict[Key, int] = {}
        for asked, values in _asked(self.runs.of(traces)):
            for seq, trace_id, span_id, project_id in self._connection.execute(
                f"{asked} SELECT seq, {_KEY} FROM asked CROSS JOIN calls ON {_HOLDS_ASKED}"
                f" UNION ALL SELECT seq, {_KEY} FROM asked CROSS JOIN spans ON {_HOLDS_ASKED}",
                values,
            ):
                found[trace_id, span_id, project_id] = seq
        self._stored_traces = {(trace_id, project_id) for trace_id, _, project_id in found}
        return found

    # ---- what log events say of failures -----------------------------------------------------------------

    def _note_failures(self, group: Sequence[Batch]) -> list[int]:
        """Keep what is told; gives how much was new in each request."""
        return [
            sum(
                self._failures.note(self._interner.project(batch.project), failure, self.dirty.now_ns)
                for failure in batch.failures
            )
            for batch in group
        ]

    def _mend(self, group: Sequence[Batch]) -> None:
        """Fill the errors of stored calls that were told of, and settle them anew: a failed call has other twins."""
        for batch in group:
            project_id = self._interner.project(batch.project)
            keys = {(failure.trace_id, failure.span_id) for failure in batch.failures}
            changed = []
            for stored in self._spans_of(project_id, {trace_id for trace_id, _ in keys}):
                if stored.facts.key not in keys or stored.call is None:
                    continue
                call = self._failures.mended(project_id, stored.call)
                if call is not stored.call:
                    hint_id = self._interner.hints(stored.facts.hints)
                    row = callrows.row_of_call(
                        stored.seq,
                        project_id,
                        call,
                        hint_id,
                        self._interner,
                        stored.superseded_by,
                        stored.taken,
                    )
                    self._connection.execute(tables.insert(tables.Call, "REPLACE"), row)
                    self.dirty.mark(call.start_ns // HOUR_NS)
                    changed.append(call)
            if changed:
                self._settle_project(project_id, {call.trace_id for call in changed}, changed, {})

    # ---- which calls count, under which route -----------------------------------------------------------

    def _settle(self, new: Sequence[_New]) -> None:
        senders = {(item.call.service_name, item.call.scope) for item in new if item.call is not None}
        for service_name, scope in senders:
            self._scopes[service_name].add(scope)
        is_seen_once = all(len(self._scopes[service_name]) == 1 for service_name, _ in senders)
        is_alone = not self._stored_traces and len({item.span.span.trace_id for item in new}) == len(new)
        if is_seen_once and is_alone:
            return
        by_trace: dict[tuple[bytes, int], list[_New]] = defaultdict(list)
        for item in new:
            by_trace[item.span.span.trace_id, item.project_id].append(item)
        related: dict[int, list[_New]] = defaultdict(list)
        for (trace_id, project_id), items in by_trace.items():
            if len(items) == 1 and (trace_id, project_id) not in self._stored_traces:
                call = items[0].call
                if call is None or len(self._scopes[call.service_name]) == 1:
                    continue
            related[project_id] += items
        for project_id, items in related.items():
            self._settle_project(
                project_id,
                {item.span.span.trace_id for item in items},
                [item.call for item in items if item.call is not None],
                {
                    (item.span.span.trace_id, item.span.span.span_id): item
                    for item in new
                    if item.project_id == project_id
                },
            )

    def _settle_project(
        self, project_id: int, traces: set[bytes], calls: Sequence[CallRecord], fresh: Mapping[SpanKey, _New]
    ) -> None:
        """Settle these traces with everything related; `fresh` are the spans that are not in the tables yet."""
        stored = self._related(project_id, traces, calls)
        traces = traces | {key[0] for key in stored}
        facts = [facts_of(item.span) for key, item in fresh.items() if key[0] in traces]
        facts += [each.facts for each in stored.values()]
        if not any(fact.call for fact in facts):
            return
        seqs = {key: each.seq for key, each in stored.items()}
        seqs |= {key: item.seq for key, item in fresh.items()}
        for key, verdict in resolve(facts, self._route_order).items():
            superseded_by = seqs[verdict.superseded_by] if verdict.superseded_by else None
            taken = ",".join(verdict.taken) or None
            item = fresh.get(key)
            if item is not None:
                assert item.call is not None
                item.call = _settled(item.call, verdict)
                item.superseded_by, item.taken = superseded_by, taken
            else:
                self._update(stored[key], verdict, superseded_by, taken)

    def _related(
        self, project_id: int, traces: set[bytes], calls: Sequence[CallRecord]
    ) -> dict[SpanKey, _Stored]:
        """What the store holds of these traces, of calls that may be the same as these, and of their traces."""
        stored = {each.facts.key: each for each in self._spans_of(project_id, traces)}
        asked = set(traces)
        # Also of stored calls whose trace only gets a further span: their duplicates may lie in other traces.
        calls = [*calls, *(each.facts.call for each in stored.values() if each.facts.call is not None)]
        while calls:
            suspects = self._look_alikes(project_id, calls)
            further = {trace_id for trace_id, _ in suspects} - asked
            asked |= further
            found = self._spans_of(project_id, further)
            stored |= {each.facts.key: each for each in found}
            calls = [each.facts.call for each in found if each.facts.call is not None]
        return stored

    def _look_alikes(self, project_id: int, calls: Sequence[CallRecord]) -> set[SpanKey]:
        """Stored calls that share a response id with one of these, or its time where an id is missing."""
        found: set[SpanKey] = set()
        for call in calls:
            if len(self._scopes[call.service_name]) < 2:
                continue
            if call.response_id:
                found.update(
                    self._connection.execute(
                        f"SELECT trace_id, span_id FROM calls WHERE {_HAS_RESPONSE}"
                        " AND project_id = ?2 AND +start_ns BETWEEN ?3 AND ?4",
                        (
                            call.response_id,
                            project_id,
                            call.start_ns - RESPONSE_WINDOW_NS,
                            call.start_ns + RESPONSE_WINDOW_NS,
                        ),
                    )
                )
            # Only a pair of which one has no id is matched by time; calls without one have an index of their own.
            anonymous = "AND c.response_id IS NULL" if call.response_id else ""
            found.update(
                self._connection.execute(
                    "SELECT c.trace_id, c.span_id FROM calls c JOIN call_origins o ON o.id = c.origin_id"
                    " WHERE c.start_ns BETWEEN ?1 AND ?2 AND c.start_ns + ifnull(c.duration_ns, 0) >= ?3"
                    f" AND c.project_id = ?4 AND o.service_name = ?5 AND o.scope <> ?6 {anonymous} LIMIT ?7",
                    (
                        call.start_ns - LONGEST_CALL_NS,
                        call.start_ns + (call.duration_ns or 0) + CLOCK_SLACK_NS,
                        call.start_ns - CLOCK_SLACK_NS,
                        project_id,
                        call.service_name,
                        call.scope,
                        MAX_LOOK_ALIKES,
                    ),
                )
            )
        return found

    def _spans_of(self, project_id: int, traces: Iterable[bytes]) -> list[_Stored]:
        found: list[_Stored] = []
        connection, dictionary = self._connection, self._dictionary
        for asked, values in _asked(self.runs.of(traces)):
            most = MAX_RELATED * len(values) // 2
            for row in connection.execute(
                f"{asked} {callrows.SELECT_FROM} asked CROSS JOIN calls c ON {_HOLDS_ASKED}"
                " WHERE c.project_id = ? LIMIT ?",
                (*values, project_id, most),
            ):
                call = callrows.call_of_row(connection, row, dictionary)
                taken = row[callrows.TAKEN]
                as_read = original(call, taken.split(",")) if taken else call
                facts = SpanFacts(
                    call.trace_id,
                    call.span_id,
                    call.parent_span_id,
                    "call",
                    call.scope,
                    dictionary.hints(connection, row[callrows.HINT_ID]),
                    as_read,
                )
                found.append(
                    _Stored(row[callrows.SEQ], project_id, facts, call, row[callrows.SUPERSEDED_BY], taken)
                )
            for seq, trace_id, span_id, parent_span_id, role, hint_id in connection.execute(
                f"{asked} SELECT seq, trace_id, span_id, parent_span_id, role, hint_id"
                f" FROM asked CROSS JOIN spans ON {_HOLDS_ASKED} WHERE project_id = ? LIMIT ?",
                (*values, project_id, most),
            ):
                hints = dictionary.hints(connection, hint_id)
                facts = SpanFacts(trace_id, span_id, parent_span_id, role, "", hints)
                found.append(_Stored(seq, project_id, facts, None))
        return found

    def _update(
        self, stored: _Stored, verdict: Settled, superseded_by: int | None, taken: str | None
    ) -> None:
        assert stored.facts.call is not None
        call = _settled(stored.facts.call, verdict)
        if (call, superseded_by, taken) == (stored.call, stored.superseded_by, stored.taken):
            return
        hint_id = self._interner.hints(stored.facts.hints)
        row = callrows.row_of_call(
            stored.seq, stored.project_id, call, hint_id, self._interner, superseded_by, taken
        )
        self._connection.execute(tables.insert(tables.Call, "REPLACE"), row)
        self.dirty.mark(call.start_ns // HOUR_NS)
        if superseded_by is not None and superseded_by != stored.superseded_by:
            self.scorer.move(stored.seq, superseded_by)

    # ---- the rows ---------------------------------------------------------------------------------------

    def _insert_rows(self, new: Sequence[_New]) -> None:
        calls, spans = [], []
        interner, connection = self._interner, self._connection
        for item in new:
            hint_id = interner.hints(item.span.hints)
            if item.call is not None:
                calls.append(
                    callrows.row_of_call(
                        item.seq,
                        item.project_id,
                        item.call,
                        hint_id,
                        interner,
                        item.superseded_by,
                        item.taken,
                    )
                )
                self.dirty.mark(item.call.start_ns // HOUR_NS)
            else:
                span = item.span.span
                spans.append(
                    (
                        item.seq,
                        item.project_id,
                        span.trace_id,
                        span.span_id,
                        span.parent_span_id,
                        item.span.role,
                        hint_id,
                        span.start_ns,
                        span.end_ns,
                    )
                )
        if calls:
            connection.executemany(_INSERT_CALL, calls)
        if spans:
            connection.executemany(_INSERT_SPAN, spans)

    def _insert(self, new: Sequence[_New]) -> None:
        self._insert_rows(new)
        self.runs.note([(item.seq, item.span.span.trace_id, item.span.span.start_ns) for item in new])
        connection = self._connection
        for chunk in _chunks(new, blocks.MAX_ITEMS):
            body = blocks.pack([blocks.span_item(item.seq, item.span.span) for item in chunk])
            connection.execute(_INSERT_SPAN_BLOCK, _block_row(chunk, body))
        for chunk in _chunks([item for item in new if self._has_texts(item)], blocks.MAX_ITEMS):
            body = blocks.pack([blocks.content_item(item.seq, item.span.contents) for item in chunk])
            connection.execute(_INSERT_CONTENT_BLOCK, _block_row(chunk, body))
        self.scorer.note_calls(
            (item.seq, item.call, item.span.span.attributes) for item in new if item.call is not None
        )
        for item in new:
            if item.superseded_by is not None:
                self.scorer.move(item.seq, item.superseded_by)

    def _has_texts(self, item: _New) -> bool:
        return bool(item.span.contents) and item.span.span.start_ns >= self.horizons.contents_ns

    def _forward(self, group: Sequence[Batch], accepted: Sequence[int], now_ns: int) -> None:
        """Queue for forwarding what brought anything new: a request that was sent again has been queued before."""
        waiting = [
            (
                batch.forward_signal,
                batch.forward,
                len(batch.forward),
                len(batch.spans) or len(batch.scores) + len(batch.failures),
                now_ns,
            )
            for batch, new in zip(group, accepted, strict=True)
            if batch.forward and new
        ]
        if waiting:
            self._connection.executemany(
                "INSERT INTO outbox (signal, payload, nbytes, spans, created_ns) VALUES (?, ?, ?, ?, ?)",
                waiting,
            )

    def _count(self, next_seq: int, **added: int) -> None:
        rows: list[tuple[str, int, int | None]] = [("next_seq", next_seq, next_seq)]
        rows += [(name, n, None) for name, n in added.items() if n]
        self._connection.executemany(
            "INSERT INTO counters (name, n) VALUES (?1, ?2)"
            " ON CONFLICT (name) DO UPDATE SET n = ifnull(?3, counters.n + excluded.n)",
            rows,
        )


def _settled(call: CallRecord, verdict: Settled) -> CallRecord:
    if verdict.taken:
        call = replace(call, **verdict.taken)
    return callrows.with_verdict(call, verdict.route, verdict.route_source, verdict.flags)


def _block_row(items: Sequence[_New], body: bytes) -> tuple[Any, ...]:
    times = [item.span.span.start_ns for item in items]
    return items[0].seq, items[-1].seq, len(items), min(times), max(times), body


def _chunks(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _asked(pairs: Sequence[tuple[bytes, int]]) -> Iterator[tuple[str, list[Any]]]:
    """The (trace, run) pairs as a table of a statement, `asked`, with its values."""
    while pairs:
        places = next((size for size in _ASKED if size >= len(pairs)), _ASKED[-1])
        values: list[Any] = [value for pair in pairs[:places] for value in pair]
        pairs = pairs[places:]
        values += [None] * (2 * places - len(values))
        yield f"WITH asked (id, run) AS (VALUES {', '.join(['(?, ?)'] * places)})", values
