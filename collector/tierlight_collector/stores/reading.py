"""Lists, single calls, traces and evidence. Every query is bounded by an index and a limit."""

# ruff: noqa: S608 - only names of our own tables and columns are put into statements; values are bound

# Long because every list and single read of calls shares the columns and the way back to records.
from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

from ..records import (
    HOUR_NS,
    CallEvidence,
    CallPage,
    CallRow,
    ContentRecord,
    Cursor,
    Filters,
    ScoreEvidence,
    ScoreRecord,
    SpanRecord,
)
from . import blocks, callrows, tables
from .intern import SERIES_FIELDS, Dictionary
from .protocol import Order

MAX_LANES: Final = 1_000  # kinds that are read side by side before a plain walk through time is cheaper
# The last parameter says in which runs a trace may be, where that is known (see `Runs.as_json`).
_IN_TRACE: Final = tables.has_id("trace_id", "?1", runs=tables.given_runs("?4"))
_ORDER_BY: Final = {"time": "c.start_ns", "cost": "c.cost_nusd", "latency": "c.duration_ns"}
_EVIDENCE_FIELDS: Final = (
    "route",
    "provider",
    "request_model",
    "tier",
    "purpose",
    "experiment",
    "arm",
    "prompt_version",
    "segment",
    "error_class",
    "attempt_reason",
    "finish_reason",
    "attempt_final",
)
_EVIDENCE_PARTS: Final = (
    "cached_input_tokens",
    "cache_write_input_tokens",
    "cost_input_nusd",
    "cost_cached_nusd",
    "cost_cache_write_nusd",
    "cost_output_nusd",
)


def series_of(
    connection: sqlite3.Connection, dictionary: Dictionary, where: Filters
) -> dict[int, tuple[str, ...]]:
    """The series that the filters mean."""
    found = {
        series_id: values
        for series_id, values in dictionary.series(connection).items()
        if values[0] == where.project
    }
    for index, name in enumerate(SERIES_FIELDS):
        if name != "project" and (names := set(getattr(where, name))):
            found = {series_id: values for series_id, values in found.items() if values[index] in names}
    return found


def kinds_of(connection: sqlite3.Connection, dictionary: Dictionary, where: Filters) -> list[int]:
    """The kinds of calls that the filters mean."""
    series = series_of(connection, dictionary, where)
    return [
        kind_id
        for kind_id, kind in dictionary.kinds(connection).items()
        if kind.series_id in series
        and (where.error is None or kind.failed == where.error)
        and (not where.attempt_reason or kind.values["attempt_reason"] in where.attempt_reason)
        and (not where.prompt_version or kind.values["prompt_version"] in where.prompt_version)
    ]


def page_of_calls(
    connection: sqlite3.Connection,
    dictionary: Dictionary,
    where: Filters,
    after: Cursor | None,
    limit: int,
    order: Order,
    descending: bool,
) -> CallPage:
    kinds = kinds_of(connection, dictionary, where)
    if not kinds or limit < 1:
        return CallPage((), None)
    conditions, values = ["c.superseded_by IS NULL"], []
    if where.start_ns:
        conditions.append("c.start_ns >= ?")
        values.append(where.start_ns)
    if where.end_ns:
        conditions.append("c.start_ns < ?")
        values.append(where.end_ns)
    if where.unpriced is not None:
        conditions.append("c.cost_nusd IS NULL" if where.unpriced else "c.cost_nusd IS NOT NULL")
    if where.text:
        seqs = list(_seqs_by_id(connection, where.text))
        conditions.append(f"c.seq IN ({', '.join(map(str, seqs))})")
    query = _Query(conditions, values, order, descending, after, limit + 1, bool(where.text))
    if where.text or order != "time" or len(kinds) > MAX_LANES:
        rows = query.walk(connection, kinds)
    elif len(kinds) == len(dictionary.kinds(connection)):
        rows = query.walk(connection, None)
    else:
        rows = query.lanes(connection, kinds)
    page = rows[:limit]
    calls = call_rows(connection, dictionary, page)
    next_cursor = None
    if len(rows) > limit:
        last = page[-1]
        value = last[query.sort_at]
        next_cursor = Cursor(UNKNOWN if value is None else value, last[callrows.SEQ])
    return CallPage(tuple(calls), next_cursor)


UNKNOWN: Final = -(2**63)  # a cursor's value where the sort column is NULL: those rows come last


class _Query:
    """One page of calls by key: what is left of the order after the cursor."""

    def __init__(
        self,
        conditions: Sequence[str],
        values: Sequence[Any],
        order: Order,
        descending: bool,
        after: Cursor | None,
        limit: int,
        is_searched: bool,
    ) -> None:
        column = _ORDER_BY[order]
        direction, compare = ("DESC", "<") if descending else ("ASC", ">")
        conditions, values = list(conditions), list(values)
        if after is not None and after.value == UNKNOWN:
            conditions.append(f"{column} IS NULL AND c.seq {compare} ?")
            values.append(after.seq)
        elif after is not None:
            unknown = "" if order == "time" else f" OR {column} IS NULL"
            conditions.append(f"({column} {compare}= ?1 AND ({column} <> ?1 OR c.seq {compare} ?2){unknown})")
            conditions[-1] = conditions[-1].replace("?1", str(after.value)).replace("?2", str(after.seq))
        self._where, self._values, self._limit = " AND ".join(conditions), values, limit
        nulls = "" if order == "time" else " NULLS LAST"
        self._order = f" ORDER BY {column} {direction}{nulls}, c.seq {direction} LIMIT {limit:d}"
        self._descending = descending
        self._by_kind = order != "time" and not is_searched
        self.sort_at = callrows.COLUMNS.index(column[2:])

    def walk(self, connection: sqlite3.Connection, kinds: Sequence[int] | None) -> list[Any]:
        """All calls that fit, sorted; those of few kinds are found by the index on (kind, start)."""
        by_index = "" if kinds is not None and len(kinds) <= MAX_LANES and self._by_kind else "+"
        chosen = "" if kinds is None else f" AND {by_index}c.kind_id IN ({', '.join(map(str, kinds))})"
        return connection.execute(
            f"{callrows.SELECT} WHERE {self._where}{chosen}{self._order}", self._values
        ).fetchall()

    def lanes(self, connection: sqlite3.Connection, kinds: Sequence[int]) -> list[Any]:
        """The newest of each kind by the index on (kind, start), merged: no call that is not meant is looked at."""
        query = f"{callrows.SELECT} WHERE c.kind_id = ? AND {self._where}{self._order}"
        lanes = [connection.execute(query, (kind_id, *self._values)).fetchall() for kind_id in kinds]
        merged = heapq.merge(
            *lanes,
            key=lambda row: (row[self.sort_at], row[callrows.SEQ]),
            reverse=self._descending,
        )
        return [row for row, _ in zip(merged, range(self._limit), strict=False)]


def _seqs_by_id(connection: sqlite3.Connection, text: str) -> set[int]:
    """Calls with exactly this trace, span, response, call or session id, or of this user."""
    found: set[int] = set()
    for column in ("response_id", "call_id", "session_id", "user_id"):
        found.update(
            seq
            for (seq,) in connection.execute(
                f"SELECT seq FROM calls WHERE {tables.has_id(column, '?1')} LIMIT 10000", (text,)
            )
        )
    hexadecimal = text.replace("-", "").lower()
    try:
        raw = bytes.fromhex(hexadecimal)
    except ValueError:
        return found
    if len(raw) in (16, 8):
        same = tables.has_id("trace_id", "?1") if len(raw) == 16 else "span_id = ?1"
        found.update(
            seq
            for (seq,) in connection.execute(
                f"SELECT seq FROM calls WHERE {same} LIMIT 10000",
                (raw,),
            )
        )
    return found


def call_rows(
    connection: sqlite3.Connection, dictionary: Dictionary, rows: Iterable[Sequence[Any]]
) -> list[CallRow]:
    """Rows of `callrows.SELECT` as calls with their scores."""
    signals = dictionary.signals(connection)
    found = []
    for row in rows:
        call = callrows.call_of_row(connection, row, dictionary)
        seq = row[callrows.SEQ]
        scores = tuple(
            ScoreRecord(
                name=signals[signal_id][0],
                value=value,
                source=signals[signal_id][1],
                kind=kind,
                time_ns=time_ns,
                call_id=call.call_id,
                trace_id=call.trace_id,
                span_id=call.span_id,
                label=label,
                explanation=explanation,
                evaluator_version=version,
                weight=weight,
                project=call.project,
            )
            for signal_id, kind, value, weight, time_ns, version, label, explanation in connection.execute(
                "SELECT signal_id, kind, value, weight, time_ns, evaluator_version, label, explanation"
                " FROM scores WHERE call_seq = ? ORDER BY signal_id",
                (seq,),
            )
        )
        found.append(CallRow(seq, call, row[callrows.SUPERSEDED_BY] is not None, scores))
    return found


def one_call(
    connection: sqlite3.Connection,
    dictionary: Dictionary,
    trace_id: bytes,
    span_id: bytes,
    project: str,
    runs: str | None,
) -> CallRow | None:
    rows = connection.execute(
        f"{callrows.SELECT} WHERE {_IN_TRACE} AND c.span_id = ?2"
        " AND c.project_id = (SELECT id FROM projects WHERE name = ?3)",
        (trace_id, span_id, project, runs),
    ).fetchall()
    found = call_rows(connection, dictionary, rows)
    return found[0] if found else None


def route_ends(
    connection: sqlite3.Connection, dictionary: Dictionary, project: str
) -> dict[str, tuple[int, int, str]]:
    """Start of the first and the last production call of each route, and the last one's tier."""
    series = series_of(connection, dictionary, Filters(project=project))
    found: dict[str, tuple[int, int, str]] = {}
    ends = connection.execute(
        "SELECT series_id, (SELECT min(start_ns) FROM calls WHERE kind_id = k.id),"
        " (SELECT max(start_ns) FROM calls WHERE kind_id = k.id) FROM call_kinds k"
    ).fetchall()
    # Beyond retention only rollups know, to the hour.
    kept_from = (connection.execute("SELECT min(start_ns) FROM calls").fetchone()[0] or 2**63 - 1) // HOUR_NS
    oldest = connection.execute("SELECT min(hour) FROM rolled_hours").fetchone()[0]
    if oldest is not None and oldest < kept_from:
        ends += connection.execute(
            "SELECT id, (SELECT min(bucket) FROM rollup_hour WHERE series_id = s.id AND bucket < ?1) * ?2,"
            " (SELECT max(bucket) FROM rollup_hour WHERE series_id = s.id AND bucket < ?1) * ?2 FROM series s",
            (kept_from, HOUR_NS),
        )
    for series_id, first_ns, last_ns in ends:
        if first_ns is None or series_id not in series:
            continue
        _, _, route, _, _, tier, *_ = series[series_id]
        low, high, newest_tier = found.get(route, (first_ns, last_ns, tier))
        found[route] = (min(low, first_ns), max(high, last_ns), tier if last_ns >= high else newest_tier)
    return found


# ---- raw spans and contents -----------------------------------------------------------------------------


def trace(
    connection: sqlite3.Connection, trace_id: bytes, project: str, limit: int, runs: str | None
) -> list[SpanRecord]:
    rows = connection.execute(
        f"SELECT seq, span_id, parent_span_id, start_ns FROM calls WHERE {_IN_TRACE} AND project_id ="
        " (SELECT id FROM projects WHERE name = ?2)"
        f" UNION ALL SELECT seq, span_id, parent_span_id, start_ns FROM spans WHERE {_IN_TRACE} AND project_id ="
        " (SELECT id FROM projects WHERE name = ?2) ORDER BY start_ns, seq LIMIT ?3",
        (trace_id, project, limit, runs),
    ).fetchall()
    items = items_of(connection, "span_blocks", [row[0] for row in rows])
    return [
        blocks.span_of_item(items[seq], trace_id, span_id, parent_span_id, start_ns)
        for seq, span_id, parent_span_id, start_ns in rows
        if seq in items
    ]


def contents(
    connection: sqlite3.Connection, trace_id: bytes, span_id: bytes, project: str, runs: str | None
) -> list[ContentRecord]:
    row = connection.execute(
        f"SELECT seq FROM calls WHERE {_IN_TRACE} AND span_id = ?2 AND project_id ="
        " (SELECT id FROM projects WHERE name = ?3) UNION ALL"
        f" SELECT seq FROM spans WHERE {_IN_TRACE} AND span_id = ?2 AND project_id ="
        " (SELECT id FROM projects WHERE name = ?3)",
        (trace_id, span_id, project, runs),
    ).fetchone()
    if row is None:
        return []
    items = items_of(connection, "content_blocks", [row[0]])
    return blocks.contents_of_item(items[row[0]], trace_id, span_id) if row[0] in items else []


def items_of(connection: sqlite3.Connection, table: str, seqs: Sequence[int]) -> dict[int, Any]:
    """The items of these arrival numbers, each block opened once. Purged ones are missing."""
    found: dict[int, Any] = {}
    wanted = sorted(seqs)
    at = 0
    while at < len(wanted):
        row = connection.execute(
            f"SELECT last_seq, body FROM {table} WHERE first_seq <= ? ORDER BY first_seq DESC LIMIT 1",
            (wanted[at],),
        ).fetchone()
        end = at + 1
        if row is not None and row[0] >= wanted[at]:
            while end < len(wanted) and wanted[end] <= row[0]:
                end += 1
            asked = set(wanted[at:end])
            found |= {item[0]: item for item in blocks.unpack(row[1]) if item[0] in asked}
        at = end
    return found


# ---- evidence -------------------------------------------------------------------------------------------


def call_evidence(
    connection: sqlite3.Connection, dictionary: Dictionary, after: int, limit: int
) -> list[CallEvidence]:
    return [
        _evidence(connection, dictionary, row)
        for row in connection.execute(
            f"SELECT {_EVIDENCE} FROM calls c WHERE c.seq > ? AND c.superseded_by IS NULL ORDER BY c.seq LIMIT ?",
            (after, limit),
        )
    ]


def score_evidence(
    connection: sqlite3.Connection, dictionary: Dictionary, after: int, limit: int
) -> list[ScoreEvidence]:
    signals = dictionary.signals(connection)
    return [
        ScoreEvidence(
            seq=seq,
            name=signals[signal_id][0],
            source=signals[signal_id][1],
            kind=kind,
            value=value,
            weight=weight,
            evaluator_version=version,
            time_ns=time_ns,
            call=_evidence(connection, dictionary, row),
        )
        for seq, signal_id, kind, value, weight, version, time_ns, *row in connection.execute(
            "SELECT s.seq, s.signal_id, s.kind, s.value, s.weight, s.evaluator_version, s.time_ns, "
            f"{_EVIDENCE} FROM scores s CROSS JOIN calls c ON c.seq = s.call_seq"
            " WHERE s.seq > ? AND s.value IS NOT NULL AND c.superseded_by IS NULL ORDER BY s.seq LIMIT ?",
            (after, limit),
        )
    ]


_EVIDENCE: Final = (
    "c.seq, c.kind_id, c.trace_id, c.span_id, c.start_ns, c.duration_ns, c.ttft_ns, c.input_tokens,"
    " c.output_tokens, c.cost_nusd, c.act_prob, c.keep_prob, c.call_id, c.origin_id, "
    + ", ".join("c." + name for name in _EVIDENCE_PARTS)
)


def _evidence(connection: sqlite3.Connection, dictionary: Dictionary, row: Sequence[Any]) -> CallEvidence:
    seq, kind_id, trace_id, span_id, start_ns, duration_ns, ttft_ns, input_tokens, output_tokens, *rest = row
    cost_nusd, act_prob, keep_prob, call_id, origin_id, *parts = rest
    kind = dictionary.known_kinds.get(kind_id) or dictionary.kinds(connection)[kind_id]
    values = kind.values
    return CallEvidence(
        seq=seq,
        trace_id=trace_id,
        span_id=span_id,
        model=kind.model,
        start_ns=start_ns,
        latency_ms=None if duration_ns is None else duration_ns / 1e6,
        ttft_ms=None if ttft_ns is None else ttft_ns / 1e6,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cost_nusd=cost_nusd,
        act_prob=act_prob,
        keep_prob=keep_prob,
        call_id=call_id or "",
        price_version=dictionary.origin(connection, origin_id)["price_version"],
        **{name: values[name] for name in _EVIDENCE_FIELDS},
        **dict(zip(_EVIDENCE_PARTS, parts, strict=True)),
    )


# ---- everything, in arrival order -----------------------------------------------------------------------


def raw_spans(connection: sqlite3.Connection, after: int, limit: int) -> list[tuple[int, SpanRecord]]:
    """Received spans as far as they are kept, LLM or not."""
    rows = connection.execute(
        "SELECT seq, trace_id, span_id, parent_span_id, start_ns FROM calls WHERE seq > ?1"
        " UNION ALL SELECT seq, trace_id, span_id, parent_span_id, start_ns FROM spans WHERE seq > ?1"
        " ORDER BY seq LIMIT ?2",
        (after, limit),
    ).fetchall()
    items = items_of(connection, "span_blocks", [row[0] for row in rows])
    return [(seq, blocks.span_of_item(items[seq], *ids)) for seq, *ids in rows if seq in items]


def seqs_to_purge(
    connection: sqlite3.Connection,
    dictionary: Dictionary,
    after: int,
    limit: int,
    span: tuple[bytes, bytes] | None,
    user: str,
    route: str,
    before_ns: int,
    project: str,
) -> list[int]:
    """Arrival numbers > `after` of the calls that fit all that is given, in order."""
    conditions = ["c.seq > ?", "c.project_id = (SELECT id FROM projects WHERE name = ?)"]
    values: list[Any] = [after, project]
    if span is not None:
        trace_id, span_id = span
        conditions.append(tables.has_id("trace_id", "?", "?") + " AND c.span_id = ?")
        values += [trace_id, trace_id, span_id]
    if user:
        conditions.append(tables.has_id("user_id", "?", "?"))
        values += [user, user]
    if before_ns:
        conditions.append("c.start_ns < ?")
        values.append(before_ns)
    if route:
        kinds = kinds_of(connection, dictionary, Filters(project=project, route=(route,), purpose=()))
        conditions.append(f"c.kind_id IN ({', '.join(map(str, kinds))})")
    return [
        seq
        for (seq,) in connection.execute(
            f"SELECT c.seq FROM calls c WHERE {' AND '.join(conditions)} ORDER BY c.seq LIMIT ?",
            (*values, limit),
        )
    ]
