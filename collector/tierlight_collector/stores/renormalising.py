"""Stored spans read again by today's rules: what they say differently is written, all else stays as it is.

The raw span is the witness; a call's columns are what some version of the rules made of it. A chunk is read in one
transaction: calls whose reading differs are written anew, spans that became calls (or the reverse) change tables under
the same arrival number, and every trace that was touched is settled again by the code that settles new ones.

Costs stay frozen. Only where the model, the usage or the stated cost is read differently is a call priced again, and
then its old cost is kept as history. Scores and captured texts are not read again.
"""

# ruff: noqa: S608 - only names of our own tables and columns are put into statements; values are bound

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from ..costing import PRICE_ESTIMATED, STATED
from ..normalise import NORM_VERSION, RouteRules, normalise, original
from ..normalise.resolve import Settled
from ..records import HOUR_NS, CallRecord, Filters, NormalisedSpan, Reread, ScoreRecord
from . import blocks, callrows, reading, tables
from .append import Appender, _Stored
from .failures import Failures
from .intern import OVERFLOW, Dictionary
from .runs import Runs
from .scoring import address_of

Price = Callable[[CallRecord], CallRecord]
_State = tuple[CallRecord, int | None]  # a call as it counts, and which call it gave way to

_SPANS: Final = (
    "SELECT seq, project_id, trace_id, span_id, parent_span_id, start_ns, hint_id, 'call' AS role FROM calls"
    " WHERE seq > ?1 AND start_ns >= ?2 UNION ALL"
    " SELECT seq, project_id, trace_id, span_id, parent_span_id, start_ns, hint_id, role FROM spans"
    " WHERE seq > ?1 AND start_ns >= ?2 ORDER BY seq LIMIT ?3"
)
_CLOCK_SUSPECT: Final = "clock_suspect"
_SETTLED_FLAG: Final = "dup_suspect"  # set by settling, not by reading
_USAGE: Final = (
    "provider",
    "request_model",
    "response_model",
    "service_tier",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_input_tokens",
    "cache_write_1h_input_tokens",
    "reasoning_tokens",
)
_COSTS: Final = (
    "cost_nusd",
    "cost_input_nusd",
    "cost_cached_nusd",
    "cost_cache_write_nusd",
    "cost_output_nusd",
    "cost_source",
    "price_version",
    "unpriced_reason",
    "wire_cost_nusd",
    "wire_cost_source",
)
_COMPARED: Final = tuple(spec.name for spec in fields(CallRecord) if spec.name != "norm_version")


@dataclass(slots=True)
class _Kept:
    """A span as it is stored."""

    seq: int
    project_id: int
    hint_id: int
    role: str
    call: CallRecord | None = None  # as it counts
    as_read: CallRecord | None = None  # before duplicates filled its gaps
    superseded_by: int | None = None
    taken: tuple[str, ...] = ()


class _Settler(Appender):
    """Settles stored calls, and remembers what each was before and is now."""

    def __init__(self, connection: sqlite3.Connection, rules: RouteRules, runs: Runs) -> None:
        super().__init__(connection, rules, runs)
        self.before: dict[int, _State | None] = {}

    def settle(self, project_id: int, traces: set[bytes], calls: Sequence[CallRecord]) -> None:
        """Settle the traces, with everything that may be the same as one of the calls."""
        self._settle_project(project_id, traces, calls, {})

    def with_relatives(self, traces: Collection[bytes]) -> set[tuple[bytes, int]]:
        """Which of the traces hold more than one span."""
        counts = Counter((trace_id, project_id) for trace_id, _, project_id in self._stored_keys(set(traces)))
        return {key for key, n in counts.items() if n > 1}

    def has_twins(self, call: CallRecord) -> bool:
        """Whether the call's service has been seen by more than one instrumentation."""
        return len(self._scopes[call.service_name]) > 1

    def rewrite(self, kept: _Kept, found: NormalisedSpan, call: CallRecord | None) -> None:
        """Store the span as it is read now; settling comes after."""
        connection = self._connection
        self.before[kept.seq] = (kept.call, kept.superseded_by) if kept.call is not None else None
        hint_id = self._interner.hints(found.hints)
        if call is not None:
            connection.execute("DELETE FROM spans WHERE seq = ?", (kept.seq,))
            row = callrows.row_of_call(
                kept.seq, kept.project_id, call, hint_id, self._interner, kept.superseded_by, None
            )
            connection.execute(tables.insert(tables.Call, "REPLACE"), row)
            self._scopes[call.service_name].add(call.scope)
            if kept.call is None:
                self.scorer.note_calls([(kept.seq, call, found.span.attributes)])
            self.dirty.mark(call.start_ns // HOUR_NS)
        else:
            if kept.call is not None:
                self._demote(kept.seq, kept.call)
            span = found.span
            connection.execute(
                tables.insert(tables.Span, "REPLACE"),
                (
                    kept.seq,
                    kept.project_id,
                    span.trace_id,
                    span.span_id,
                    span.parent_span_id,
                    found.role,
                    hint_id,
                    span.start_ns,
                    span.end_ns,
                ),
            )

    def _demote(self, seq: int, call: CallRecord) -> None:
        """No call any more: what was said of it waits, as it would if it came today."""
        connection = self._connection
        signals = self._dictionary.signals(connection)
        for signal_id, kind, value, weight, time_ns, version, label, explanation in connection.execute(
            "SELECT signal_id, kind, value, weight, time_ns, evaluator_version, label, explanation"
            " FROM scores WHERE call_seq = ?",
            (seq,),
        ).fetchall():
            name, source = signals[signal_id]
            score = ScoreRecord(
                name=name,
                value=value,
                source=source,
                kind=kind,
                time_ns=time_ns,
                trace_id=call.trace_id,
                span_id=call.span_id,
                label=label,
                explanation=explanation,
                evaluator_version=version,
                weight=weight,
                project=call.project,
            )
            self.scorer.hold(score, address_of(score))
        for table in ("scores", "joins", "cost_history"):
            connection.execute(f"DELETE FROM {table} WHERE call_seq = ?", (seq,))
        connection.execute("DELETE FROM calls WHERE seq = ?", (seq,))
        self.dirty.mark(call.start_ns // HOUR_NS)

    def _update(
        self, stored: _Stored, verdict: Settled, superseded_by: int | None, taken: str | None
    ) -> None:
        assert stored.call is not None
        self.before.setdefault(stored.seq, (stored.call, stored.superseded_by))
        super()._update(stored, verdict, superseded_by, taken)

    def changes(self) -> tuple[int, Counter[str]]:
        """How many calls differ from before, and by which columns; keeps the past of every cost that changed."""
        changed, columns = 0, Counter[str]()
        # Read back, as limits of the store may have renamed a value.
        now = _counted(self._connection, self._dictionary, list(self.before))
        for seq, was in self.before.items():
            is_now = now.get(seq)
            names = _differences(was, is_now)
            changed += bool(names)
            columns.update(names)
            if was is not None and is_now is not None and not _same_cost(was[0], is_now[0]):
                old = was[0]
                self._connection.execute(
                    tables.insert(tables.CostHistory),
                    (
                        None,
                        seq,
                        self.dirty.now_ns,
                        old.cost_nusd,
                        old.cost_source,
                        old.price_version,
                        old.unpriced_reason,
                    ),
                )
        return changed, columns


def renormalise(
    connection: sqlite3.Connection,
    price: Price,
    *,
    after: int,
    limit: int,
    since_ns: int,
    routes: Sequence[str],
    now_ns: int,
    floor_hour: int,
    rules: RouteRules,
    runs: Runs,
) -> Reread:
    """Read the next spans with arrival number > `after` again, in the open transaction."""
    rows = connection.execute(_SPANS, (after, since_ns, limit)).fetchall()
    if not rows:
        return Reread(None)
    settler = _Settler(connection, rules, runs)
    settler.dirty.now_ns, settler.dirty.floor_hour = now_ns, floor_hour
    dictionary = Dictionary()
    failures = Failures(connection)
    failures.forget()
    last_seq, looked_at = rows[-1][0], len(rows)
    if routes:
        meant = _traces_of(connection, dictionary, {row[2] for row in rows}, routes)
        rows = [row for row in rows if row[2] in meant]
    items = reading.items_of(connection, "span_blocks", [row[0] for row in rows])
    calls = _stored_calls(connection, dictionary, [row[0] for row in rows if row[7] == "call"])
    related = settler.with_relatives({row[2] for row in rows})
    traces: dict[int, set[bytes]] = defaultdict(set)
    asking: dict[int, list[CallRecord]] = defaultdict(list)
    calls_seen = gone = 0
    for seq, project_id, trace_id, span_id, parent_span_id, start_ns, hint_id, role in rows:
        if seq not in items:
            gone += 1
            continue
        kept = calls.get(seq) or _Kept(seq, project_id, hint_id, role)
        kept.project_id, kept.hint_id = project_id, hint_id
        calls_seen += kept.call is not None
        span = blocks.span_of_item(items[seq], trace_id, span_id, parent_span_id, start_ns)
        arrived_ns = kept.call.arrived_ns if kept.call is not None else max(span.start_ns, span.end_ns)
        found = normalise(span, arrived_ns, rules=rules)
        if found.call is not None:
            found = replace(found, call=failures.mended(project_id, found.call))
        call = _new_call(found, kept, price)
        is_changed = (
            found.role != kept.role
            or found.hints != dictionary.hints(connection, hint_id)
            or call is not kept.as_read
        )
        if is_changed:
            settler.rewrite(kept, found, call)
        if (
            is_changed
            or (trace_id, project_id) in related
            or (call and (settler.has_twins(call) or _is_routed_anew(found, kept)))
        ):
            traces[project_id].add(trace_id)
            # What was a twin by its old reading may be none by the new one: both look for relatives.
            asking[project_id] += [
                each for each in {id(each): each for each in (call, kept.as_read)}.values() if each
            ]
    for project_id, touched in traces.items():
        settler.settle(project_id, touched, asking[project_id])
    changed, columns = settler.changes()
    return Reread(last_seq, looked_at, calls_seen, changed, gone, dict(columns))


def _new_call(found: NormalisedSpan, kept: _Kept, price: Price) -> CallRecord | None:
    """The call as it is read today, with what stays; the stored record itself where nothing differs."""
    new, old = found.call, kept.as_read
    if new is None:
        return None
    if old is None:
        return price(new)
    stays: dict[str, Any] = {
        "project": old.project,
        "route": old.route,  # settled below
        "route_source": old.route_source,
        "norm_version": old.norm_version,
    }
    stays |= {name: OVERFLOW for name in ("env", "provider", "tier", "arm") if getattr(old, name) == OVERFLOW}
    flags = new.flags
    if _CLOCK_SUSPECT in old.flags and _CLOCK_SUSPECT not in flags:  # its times were corrected when it came
        flags = (_CLOCK_SUSPECT, *flags)
    new = replace(new, flags=flags, **stays)
    if _is_priced_anew(new, old, kept.taken):
        return replace(price(new), norm_version=NORM_VERSION)
    if PRICE_ESTIMATED in old.flags:
        flags = (*flags, PRICE_ESTIMATED)
    new = replace(new, flags=flags, **{name: getattr(old, name) for name in _COSTS})
    own_flags = tuple(flag for flag in old.flags if flag != _SETTLED_FLAG)
    return old if new == replace(old, flags=own_flags) else replace(new, norm_version=NORM_VERSION)


def _is_routed_anew(found: NormalisedSpan, kept: _Kept) -> bool:
    """Whether the span says another route by itself: its words may be the same, and be believed in another order."""
    new, old = found.call, kept.call
    return (
        new is not None and old is not None and (new.route, new.route_source) != (old.route, old.route_source)
    )


def _is_priced_anew(new: CallRecord, old: CallRecord, taken: Sequence[str]) -> bool:
    if any(getattr(new, name) != getattr(old, name) for name in _USAGE):
        return True
    if old.cost_nusd is None and old.wire_cost_nusd is None and new.wire_cost_nusd is not None:
        return "wire_cost_nusd" not in taken and "cost_source" not in taken
    if "cost_source" in taken:  # the own one is not kept beside a duplicate's
        return False
    stated = (new.cost_nusd, new.cost_source) if new.cost_source in STATED else None
    return stated != ((old.cost_nusd, old.cost_source) if old.cost_source in STATED else None)


def _stored_calls(
    connection: sqlite3.Connection, dictionary: Dictionary, seqs: Sequence[int]
) -> dict[int, _Kept]:
    found = {}
    for row in _rows(connection, seqs):
        call = callrows.call_of_row(connection, row, dictionary)
        taken = tuple(row[callrows.TAKEN].split(",")) if row[callrows.TAKEN] else ()
        seq = row[callrows.SEQ]
        found[seq] = _Kept(seq, 0, 0, "call", call, original(call, taken), row[callrows.SUPERSEDED_BY], taken)
    return found


def _counted(
    connection: sqlite3.Connection, dictionary: Dictionary, seqs: Sequence[int]
) -> dict[int, _State]:
    return {
        row[callrows.SEQ]: (
            callrows.call_of_row(connection, row, dictionary),
            row[callrows.SUPERSEDED_BY],
        )
        for row in _rows(connection, seqs)
    }


def _rows(connection: sqlite3.Connection, seqs: Sequence[int]) -> list[Any]:
    if not seqs:
        return []
    return connection.execute(f"{callrows.SELECT} WHERE c.seq IN ({', '.join(map(str, seqs))})").fetchall()


def _traces_of(
    connection: sqlite3.Connection, dictionary: Dictionary, traces: Collection[bytes], routes: Sequence[str]
) -> set[bytes]:
    """Those of the traces that hold a call under one of the routes today."""
    kinds: list[int] = []
    for (project,) in connection.execute("SELECT name FROM projects").fetchall():
        where = Filters(project=project, route=tuple(routes), purpose=())
        kinds += reading.kinds_of(connection, dictionary, where)
    found: set[bytes] = set()
    for trace_id in traces:
        row = connection.execute(
            f"SELECT 1 FROM calls WHERE {tables.has_id('trace_id', '?1')}"
            f" AND kind_id IN ({', '.join(map(str, kinds))}) LIMIT 1",
            (trace_id,),
        ).fetchone()
        if row is not None:
            found.add(trace_id)
    return found


def _differences(was: _State | None, is_now: _State | None) -> list[str]:
    if was is None or is_now is None:
        return [] if was is is_now else ["role"]
    names = [name for name in _COMPARED if getattr(was[0], name) != getattr(is_now[0], name)]
    return names if was[1] == is_now[1] else [*names, "superseded"]


def _same_cost(was: CallRecord, is_now: CallRecord) -> bool:
    return (was.cost_nusd, was.cost_source) == (is_now.cost_nusd, is_now.cost_source)
